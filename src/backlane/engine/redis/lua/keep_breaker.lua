-- keep_breaker: [number, breaker as it was read | false, breaker, is_down, is_rung, how much of
--   what ended it has heard, the last of that | false] ->
--   wall, 1 | 0: it is another one by now, and nothing was changed
-- `is_rung`: who waits for the resource may now claim, or has another time to look again.

local number = args[3]
local field = tostring(number)
local ended = P .. 'ended:' .. field
if call('HGET', P .. 'breakers', field) ~= args[4] then return { wall, 0 } end
if args[8] > 0 and call('LINDEX', ended, args[8] - 1) ~= args[9] then return { wall, 0 } end
make_way()
if args[8] > 0 then call('LTRIM', ended, args[8], -1) end
call('HSET', P .. 'breakers', field, args[5])
if args[6] then
  call('HSET', P .. 'down', field, '1')
else
  call('HDEL', P .. 'down', field)
end
if args[7] then
  local sources = call('SMEMBERS', P .. 'sources:' .. field)
  for i = 1, #sources do
    local queue = tonumber(string.match(sources[i], '^(%d+)'))
    if call('EXISTS', P .. 'ready:' .. sources[i] .. ':' .. field) == 1 then
      rung_queues[queue] = true
    end
  end
  ring(nil, true)
end
return { wall, 1 }
