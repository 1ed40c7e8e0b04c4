-- Bells: tells those who listen, in whatever process, on a few channels of the namespace.
--
-- A queue's channel is chosen by a hash of its name, a job's by the last digit of its id, so
-- that no name becomes part of a channel's, and a message reaches nobody without need.
-- Sharded channels: in a cluster a message stays on its node. `bell.py` says the same.
--   q<2 digits of sha1(name)>  the name of a queue
--   j<digit>                   ids of jobs that changed      s<digit>  of jobs that were taken
-- Under load workers are busy and hear of a queue at most every 20 ms, but always after a
-- claim of theirs came back short (`arm`). Field `rung` of a queue: wall ms of the last ring.
-- For those who only listen that is late by a poll at most.

local DIGITS = '0123456789abcdef'
local is_real_time = not args[1]

-- Returns how many heard. Where channels are forbidden all poll (`Driver.open` warns of it): no
-- verb that has written already may fail by it.
local function tell_on(channel, payload)
  local heard = redis.pcall('SPUBLISH', P .. channel, payload)
  return type(heard) == 'number' and heard or 0
end

-- A claim took all there was of a queue: its next job is to ring at once.
local function arm(queue)
  call('HDEL', P .. label('q:', queue), 'rung') -- allowed where memory is full
end

local function ring_queue(queue, is_urgent)
  if is_real_time and not is_urgent then
    local last = tonumber(call('HGET', P .. label('q:', queue), 'rung') or 0)
    if last > wall - 20 and last <= wall then return end
  end
  local name = queue_name(queue)
  if not name then return end
  local heard = tell_on('q' .. string.sub(redis.sha1hex(name), 1, 2), name)
  if heard > 0 and is_real_time then call('HSET', P .. label('q:', queue), 'rung', wall) end
end

-- Rings for all that the moves of this call noted. `taken`: ids that were leased, which only
-- those hear who asked for it; `is_urgent`: a person did something, and nobody is to wait.
local function ring(taken, is_urgent)
  for queue in pairs(rung_queues) do ring_queue(queue, is_urgent) end
  local bins = {} -- by the last digit of an id; 16 higher: of those that were leased
  for id in pairs(rung_jobs) do
    local at = string.byte(id, 16) % 16 + (taken and taken[id] and 16 or 0)
    local bin = bins[at]
    if bin then
      bin[#bin + 1] = id
    else
      bins[at] = { id }
    end
  end
  for at, ids in pairs(bins) do
    local digit = at % 16 + 1
    tell_on((at < 16 and 'j' or 's') .. string.sub(DIGITS, digit, digit), table.concat(ids))
  end
  rung_queues, rung_jobs = {}, {}
end
