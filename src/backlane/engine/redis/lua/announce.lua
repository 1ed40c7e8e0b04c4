-- announce: [owner, presence packed by Python | false: it leaves] -> wall
--   workers  hash owner -> [8 bytes since when, wall ms][presence]
--   beats    sorted set of owners, score the boot ms of the last beat

-- The first worker after none was alive has schedules counted anew: nobody could declare them.

local LIVE_MS = 60000
local owner, presence = args[3], args[4]
make_way()
if presence then
  if call('ZCOUNT', P .. 'beats', '(' .. (boot - LIVE_MS), '+inf') == 0 then
    local names = call('ZRANGE', P .. 'declared', 0, -1)
    for i = 1, #names do
      local it = read_schedule(names[i])
      it[SEEN] = boot
      keep_schedule(names[i], it)
    end
  end
  local known = call('HGET', P .. 'workers', owner)
  local since = known and string.sub(known, 1, 8) or struct.pack('>I8', wall)
  call('HSET', P .. 'workers', owner, since .. presence)
  call('ZADD', P .. 'beats', boot, owner)
else
  call('HDEL', P .. 'workers', owner)
  call('ZREM', P .. 'beats', owner)
end
return { wall }
