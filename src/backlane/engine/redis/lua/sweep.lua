-- sweep: [limit, done_ms, done_jobs, failed_ms, failed_jobs, least_ms] ->
--   wall, lapsed, [id buried, ..], expired, aged, pruned, is_more
-- In the order in which it matters; each part takes what the limit leaves. A flush between
-- them: the next part may meet the same jobs.

make_way()
local left = args[3]
local LEVEL_MS = 300000 -- of waiting are one level of priority
local SILENT_MS = 60000 -- without a beat: the worker is forgotten
local GONE_MS = 3600000 -- an owner that said farewell is remembered for so long

-- The ids of some members, their rows read; members of jobs that are not known are dropped.
local function taken(key, members)
  local ids, found = {}, {}
  for i = 1, #members do ids[i] = id_of(members[i]) end
  read_rows(ids)
  for i = 1, #ids do
    if rows[ids[i]] then
      found[#found + 1] = ids[i]
    else
      push(zrems, key, members[i])
    end
  end
  left = left - #found
  return found
end

local function up_to(key, score, number)
  if number <= 0 then return {} end
  return call('ZRANGEBYSCORE', P .. key, '-inf', score, 'LIMIT', 0, number)
end

-- -- leases that have ended --

local buried = {}
local lapsed = taken('leases', up_to('leases', boot, left))
for i = 1, #lapsed do
  lapse(lapsed[i], rows[lapsed[i]])
  if rows[lapsed[i]][STATE] == FAILED then buried[#buried + 1] = lapsed[i] end
end
follow()
flush()

-- -- deadlines: only those that wait are among them --

local expired = taken('deadlines', up_to('deadlines', wall, left))
for i = 1, #expired do finish(expired[i], rows[expired[i]], EXPIRED) end
follow()
flush()

-- -- ageing --
--
-- Only a job that passed a multiple of LEVEL_MS since the last time can be due for its next
-- level: its place is in one of nine windows, each as long as it is since then. Jobs that
-- came back to their own priority at an old place are in `unaged` (`count` saw to it).

local aged = 0

local function age_some(key, members)
  local ids = taken(key, members)
  for i = 1, #ids do
    local row = rows[ids[i]]
    local rank = row[STATE] == READY and aged_rank(row) or 0
    if rank > row[RANK] then
      age(ids[i], row, rank)
      aged = aged + 1
    else
      left = left + 1 -- it was only looked at
    end
  end
  flush()
end

local function ready_sets()
  local found, queues = {}, call('HVALS', P .. 'queues')
  for i = 1, #queues do
    local res = line(queues[i]).res or {}
    for lane = 0, 1 do
      local key = 'ready:' .. queues[i] .. ':' .. lane
      if call('EXISTS', P .. key) == 1 then found[#found + 1] = key end
      for j = 1, #res do
        local of = key .. ':' .. res[j]
        if call('EXISTS', P .. of) == 1 then found[#found + 1] = of end
      end
    end
  end
  return found
end

-- Each window of the time from `since` to `now`: set, lowest and highest score.
local function windows(sets, since, now)
  local found = {}
  for i = 1, #sets do
    -- From the top down, so that what rises is not met again.
    for rank = 8, 0, -1 do
      local floor_of = (9 - rank) * LEVEL
      -- Since longer than a level the windows touch, and are one.
      local is_one = now - since >= LEVEL_MS
      for level = 1, is_one and 1 or rank + 1 do
        local high = now - level * LEVEL_MS
        if high >= 0 then
          local low = max(0, since - (is_one and rank + 1 or level) * LEVEL_MS + 1)
          found[#found + 1] = { sets[i], floor_of + low, floor_of + high }
        end
      end
    end
  end
  return found
end

local function number_in(list)
  local number = 0
  for i = 1, #list do
    number = number + call('ZCOUNT', P .. list[i][1], list[i][2], list[i][3])
    if number > left then break end
  end
  return number
end

-- Ages what is due from `since` on, and returns up to when. The time is cut until what it
-- holds can be done at once. What was appended within one millisecond cannot be cut: of that
-- as much as is left, and the next sweep begins there again, for what rose is gone from it.
local function age_from(since, sets)
  local now = wall
  local list = windows(sets, since, now)
  local is_more = number_in(list) > left
  while is_more and now > since + 1 do
    now = since + max(1, floor((now - since) / 2))
    list = windows(sets, since, now)
    is_more = number_in(list) > left
  end
  for i = 1, #list do
    local key, low, high = list[i][1], list[i][2], list[i][3]
    local stayed, is_end = 0, false -- what has a virtual place is aged elsewhere, and stays
    while left > 0 and not is_end do
      local asked, before = left, aged
      local members = call('ZRANGEBYSCORE', P .. key, low, high, 'LIMIT', stayed, asked)
      age_some(key, members)
      stayed, is_end = stayed + #members - (aged - before), #members < asked
    end
  end
  if not is_more or left > 0 then return now end
  return since
end

local function age_all()
  local since = min(wall, tonumber(call('HGET', P .. 'meta', 'aged_ms') or 0))
  local sets = ready_sets()
  repeat since = age_from(since, sets) until since >= wall or left <= 0
  call('HSET', P .. 'meta', 'aged_ms', since)
  if since < wall then left = min(left, 0) end
end

if left > 0 then
  local members = call('ZRANGE', P .. 'unaged', 0, left - 1)
  send('ZREM', P .. 'unaged', members)
  age_some('unaged', members)
end
if left > 0 then age_some('aging', up_to('aging', wall, left)) end
if left > 0 then age_all() end

-- -- history --

local pruned = 0

-- What an unfinished job waits or waited for stays, out of the way of the others: each sweep
-- looks at some of it, longest not looked at first.
local LOOKED = 200

local function retain(id, row, is_needed)
  count(id, row, -1)
  extra(row)[E_RETAINED] = is_needed and wall
  count(id, row, 1)
  changed[id] = true
end

local function look_at_retained()
  local members = call('ZRANGE', P .. 'retained', 0, LOOKED - 1)
  if #members == 0 then return end
  local ids, before = taken('retained', members), left
  left = before + #ids -- they were only looked at
  local needed = edging().needed(ids)
  for i = 1, #ids do retain(ids[i], rows[ids[i]], needed[ids[i]] or false) end
  flush()
end
look_at_retained()

-- Forgets what has ended, but what is needed still.
local function forget_all(ids)
  local needed = #ids > 0 and edging().needed(ids)
  for i = 1, #ids do
    local id = ids[i]
    if needed[id] then
      retain(id, rows[id], true)
    else
      forget(id, rows[id], true)
      pruned = pruned + 1
    end
  end
  flush()
end

local function prune(key, age_ms, number, least_ms)
  if left <= 0 then return end
  local members = up_to(key, wall - max(age_ms, least_ms), left)
  local beyond = call('ZCARD', P .. key) - number
  if beyond > #members and left > #members then
    -- The oldest of them, and none that is too young.
    members = up_to(key, wall - least_ms, min(left, beyond))
  end
  local ids = taken(key, members)
  forget_all(ids)
end

local known = call('HVALS', P .. 'queues')
for i = 1, #known do
  prune('done:' .. known[i], args[4], args[5], args[8])
  prune('failed:' .. known[i], args[6], args[7], args[8])
end

-- What has a retention of its own. Of what is too young to go the next sweep looks again.
local function prune_kept(least_ms)
  local ids, old = taken('kept', up_to('kept', wall, left)), {}
  for i = 1, #ids do
    if rows[ids[i]][ENDED] + least_ms <= wall then old[#old + 1] = ids[i] end
  end
  left = left + #ids - #old
  forget_all(old)
end
prune_kept(args[8])

-- -- what else is past its time --

local past = up_to('repeats_until', wall, left)
send('HDEL', P .. 'repeats', past)
send('ZREM', P .. 'repeats_until', past)
left = left - #past

-- Windows of keys that are over; of a key that another job holds by now nothing changes.
past = up_to('keys_until', wall, left)
for i = 1, #past do
  local held = call('HGET', P .. 'keys', past[i])
  if held and not keying().holder(held) then call('HDEL', P .. 'keys', past[i]) end
end
send('ZREM', P .. 'keys_until', past)
left = left - #past

-- Gates that nobody has, and of which the bucket is full by now; and whether those that jobs
-- wait for have room, where nobody was told of it.
local GATES = 100
local function look_at_gates()
  local idle = up_to('idle_gates', wall, GATES)
  for i = 1, #idle do
    gating().touch(gating().gate_of(idle[i]))
    push(zrems, 'idle_gates', idle[i])
  end
  local at = call('HGET', P .. 'meta', 'looked_at') or ''
  local uses = call('ZRANGEBYLEX', P .. 'waited', '(' .. at, '+', 'LIMIT', 0, GATES)
  for i = 1, #uses do
    local gate = gating().gate_of(uses[i])
    for queue in pairs(gate.blocked) do
      if gating().room(gate) > (gate.ready[queue] or 0) then gating().touch(gate, true) end
    end
  end
  if at ~= '' or #uses > 0 then
    call('HSET', P .. 'meta', 'looked_at', #uses == GATES and uses[GATES] or '')
  end
  flush()
end
look_at_gates()

local silent = up_to('beats', '(' .. (boot - SILENT_MS), 1000)
send('HDEL', P .. 'workers', silent)
send('ZREM', P .. 'beats', silent)
call('ZREMRANGEBYSCORE', P .. 'gone', '-inf', wall - GONE_MS)

-- Schedules that no code declares any more, while some is alive to do so.
local UNDECLARED_MS = 900000
if call('EXISTS', P .. 'workers') == 1 then
  local names = call('ZRANGEBYSCORE', P .. 'declared', '-inf', boot - UNDECLARED_MS, 'LIMIT', 0, 1000)
  for i = 1, #names do drop_schedule(names[i]) end
end

if left > 0 then audit() end
ring()
return { wall, #lapsed, buried, #expired, aged, pruned, left <= 0 and 1 or 0 }
