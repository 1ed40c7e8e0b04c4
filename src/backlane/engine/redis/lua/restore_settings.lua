-- restore_settings: [queues [[name, kind, [field, value | false, ..], [count, number, ..]], ..],
--   resources [[name, breaker, is_down], ..], secret | false, forgotten ms,
--   limits [[name, declared, tuned | false], ..]] -> wall

for _, it in ipairs(args[3]) do
  local queue = queue_number(it[1])
  if not queue then
    queue = make_queue(it[1], it[2], {})
    call('HSET', P .. 'q:' .. queue, unpack(it[4]))
  end
  if line(queue).kind == it[2] then
    for i = 1, #it[3], 2 do
      if it[3][i + 1] then
        call('HSET', P .. 'q:' .. queue, it[3][i], it[3][i + 1])
      else
        call('HDEL', P .. 'q:' .. queue, it[3][i])
      end
    end
    rung_queues[queue] = true
  end
end
for _, it in ipairs(args[4]) do
  local number = resource_number(it[1])
  call('HSET', P .. 'breakers', number, it[2])
  if it[3] then
    call('HSET', P .. 'down', number, '1')
  else
    call('HDEL', P .. 'down', number)
  end
end
if args[5] then call('HSET', P .. 'meta', 'secret', args[5]) end
local forgotten = tonumber(call('HGET', P .. 'meta', 'forgotten_ms') or -1)
if args[6] > forgotten then call('HSET', P .. 'meta', 'forgotten_ms', args[6]) end
for _, it in ipairs(args[7]) do set_limit(it[1], it[2], it[3]) end
flush()
ring(nil, true)
return { wall }
