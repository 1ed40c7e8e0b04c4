-- announce: [owner, presence packed by Python | false: it leaves] -> wall
--   workers  hash owner -> [8 bytes since when, wall ms][presence]
--   beats    sorted set of owners, score the boot ms of the last beat

local owner, presence = args[3], args[4]
make_way()
if presence then
  local known = call('HGET', P .. 'workers', owner)
  local since = known and string.sub(known, 1, 8) or struct.pack('>I8', wall)
  call('HSET', P .. 'workers', owner, since .. presence)
  call('ZADD', P .. 'beats', boot, owner)
else
  call('HDEL', P .. 'workers', owner)
  call('ZREM', P .. 'beats', owner)
end
return { wall }
