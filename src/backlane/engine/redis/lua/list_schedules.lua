-- list_schedules: [is_due] -> wall, earliest of those not due | nil, [schedule, ..]

local told = {}
if args[3] then
  local names = call('ZRANGEBYSCORE', P .. 'timetable', '-inf', wall, 'LIMIT', 0, 1000)
  for i = 1, #names do tell_schedule(told, names[i], read_schedule(names[i])) end
else
  local names = call('HKEYS', P .. 'schedules')
  table.sort(names)
  for i = 1, min(#names, 10000) do tell_schedule(told, names[i], read_schedule(names[i])) end
end
local later = call('ZRANGEBYSCORE', P .. 'timetable', '(' .. wall, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { wall, later[2] or false, told }
