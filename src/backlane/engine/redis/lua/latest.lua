-- latest: [task] -> wall, [id, ended ms, result] | nil
--   latest  hash task -> [16 bytes id][6 bytes ended][result]

local kept = call('HGET', P .. 'latest', args[3])
if not kept then return { wall, false } end
return { wall, { string.sub(kept, 1, 16), (struct.unpack('>I6', kept, 17)), string.sub(kept, 23) } }
