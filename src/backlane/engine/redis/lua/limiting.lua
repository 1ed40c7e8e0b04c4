-- Limiting: limits as they are set, and who has to hear of it. Behind `moves.lua`.

local WAITED = 10000 -- gates that are told at once that a limit changed; sweeps tell the rest

local function both_of(name)
  local text = call('HGET', P .. 'limits', name)
  return text and cmsgpack.unpack(text)
end

local function are_same(a, b)
  for i = 1, 6 do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- The number of the queue whose own limit this may be, or nil.
local function queue_of_limit(name)
  local queue = string.match(name, '^queue:(.+)$')
  return queue and queue_number(queue)
end

-- Tells those that wait for a limit that there may be room.
local function spread(name)
  local low = 'l' .. name .. '\0'
  local uses = call('ZRANGEBYLEX', P .. 'waited', '[' .. low, '(l' .. name .. '\1', 'LIMIT', 0, WAITED)
  for i = 1, #uses do gating().touch(gating().gate_of(uses[i]), true) end
  local queue = queue_of_limit(name)
  if queue then rung_queues[queue] = true end
end

local function set_limit(name, declared, tuned)
  call('HSET', P .. 'limits', name, cmsgpack.pack({ declared, tuned or false }))
  gating().limits[name] = nil
  local queue = queue_of_limit(name)
  if queue then
    if bounds_all(tuned or declared) then
      call('HSET', P .. 'q:' .. queue, 'limited', '1')
    else
      call('HDEL', P .. 'q:' .. queue, 'limited')
    end
    lines[queue] = nil
  end
  spread(name)
end

-- Takes in what the code says of a limit.
local function declare_limit(name, limit)
  local both = both_of(name)
  if not both or not are_same(both[1], limit) then set_limit(name, limit, both and both[2]) end
end

-- How many run under a limit, its queue's own jobs included.
local function running_under(name)
  local queue = queue_of_limit(name)
  local limit = queue and gating().limit_of(name)
  if not limit or limit[6] then return 0 end
  return tonumber(call('HGET', P .. 'q:' .. queue, 's4') or 0)
end

-- [name, declared, tuned | false, running, blocked]
local function tell_limit(name)
  local both = both_of(name)
  local got = call('HMGET', P .. 'limited', 'r' .. name, 'b' .. name)
  return { name, cmsgpack.pack(both[1]), both[2] and cmsgpack.pack(both[2]) or false,
    (got[1] or 0) + running_under(name), tonumber(got[2] or 0) }
end
