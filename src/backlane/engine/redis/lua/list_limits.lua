-- list_limits: [most] -> wall, [what `tell_limit` tells, ..]
-- What was acquired and has ended by time counts no more, though nobody has looked at it yet.

local told, ended = {}, {}
local past = call('ZRANGEBYSCORE', P .. 'acquired', '-inf', boot, 'LIMIT', 0, 10000)
for i = 1, #past do
  local limit = string.match(string.sub(past[i], 3), '^l(%Z*)')
  if limit then ended[limit] = (ended[limit] or 0) + 1 end
end
local known = call('HKEYS', P .. 'limits')
table.sort(known)
for i = 1, min(#known, args[3]) do
  told[i] = tell_limit(known[i])
  told[i][4] = told[i][4] - (ended[known[i]] or 0)
end
return { wall, told }
