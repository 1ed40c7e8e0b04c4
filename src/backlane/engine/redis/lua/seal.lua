-- seal: [[to, since ms, is_done, move, mover, has_settings] | false] -> wall, the seal before | nil

local given = args[3]
make_way() -- to move away is one way out
local before = call('HGET', P .. 'meta', 'seal')
if given then
  given[2] = before and cmsgpack.unpack(before)[2] or wall
  call('HSET', P .. 'meta', 'seal', cmsgpack.pack(given))
else
  call('HDEL', P .. 'meta', 'seal')
end
local known = call('HVALS', P .. 'queues')
for i = 1, #known do rung_queues[tonumber(known[i])] = true end
ring(nil, true)
return { wall, before }
