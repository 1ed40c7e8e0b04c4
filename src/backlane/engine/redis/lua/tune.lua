-- tune: [queue, kind | false, [field, value | false, ..]] ->
--   wall, what `tell` tells (of a declaration: before it) | nil
-- With a kind it is a declaration, which makes the queue; one of another kind changes
-- nothing. Fields that are false are taken away.

local name, kind, fields = args[3], args[4], args[5]
local queue = queue_number(name)
if queue then make_way() end
local down = down_resources()
local told
if kind then
  told = queue and tell(queue, down)
  queue = queue or make_queue(name, kind, {})
  if line(queue).kind ~= kind then return { wall, told } end
elseif not queue then
  return { wall, false }
end
for i = 1, #fields, 2 do
  if fields[i + 1] then
    call('HSET', P .. 'q:' .. queue, fields[i], fields[i + 1])
  else
    call('HDEL', P .. 'q:' .. queue, fields[i])
  end
end
if not kind then
  told = tell(queue, down)
  rung_queues[queue] = true
  ring(nil, true)
end
return { wall, told or false }
