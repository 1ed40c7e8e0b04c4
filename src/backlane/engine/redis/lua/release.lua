-- release: [use, holder] -> wall, 1 | 0: it had none any more

make_way()
local held = struct.pack('>I2', #args[3]) .. args[3] .. args[4]
gating()
flush() -- what ended by time is gone
local had = call('ZSCORE', P .. 'acquired', held)
if had then gating().give_back(held) end
flush()
ring()
return { wall, had and 1 or 0 }
