-- Making: a queue that is new. Behind `moves.lua`.

-- Whether the limit queue:<name> is one of all jobs of its queue.
local function bounds_all(limit)
  return limit and not limit[6] and (limit[1] or limit[2]) and true or false
end

-- A new queue. `bounds` are what its caller declared: [max_jobs, max_bytes, max_wait_ms |
-- false, group_share | false], as text.
local function make_queue(name, kind, bounds)
  local number = call('HINCRBY', P .. 'meta', 'numbers', 1)
  call('HSETNX', P .. 'meta', 'version', 1) -- each new connection looks at it
  call('HSET', P .. 'queues', name, number)
  local fields = { 'name', name, 'kind', kind }
  for i = 1, 4 do
    if bounds[i] then
      fields[#fields + 1] = 'd' .. i
      fields[#fields + 1] = bounds[i]
    end
  end
  local limit = gating().limit_of('queue:' .. name)
  if bounds_all(limit) then
    fields[#fields + 1] = 'limited'
    fields[#fields + 1] = '1'
  end
  call('HSET', P .. 'q:' .. number, unpack(fields))
  numbers[name], names[number] = number, name
  return number
end
