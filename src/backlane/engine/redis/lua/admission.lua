-- Admission: may these jobs come in? What append and tick share, in front of `append.lua`.
-- args: kind, default bounds, queues [[name, declared bounds | nil, pace | nil, is fair], ..],
--   jobs [[id, queue (from 1), priority, lane, delay ms, expires ms | nil, attempts, size, sheet,
--   key field | nil, group | nil, resource | nil, has a parent, idempotency field | nil, its
--   print, its window ms, rule of its key | nil, uses | nil, edges | nil, marks | nil], ..],
--   limits [[name, limit], ..]
--   pace [starts of priorities 0..9, slots, rounded service ms]
--   marks [names to be found by | false, ms its record is kept | false, task of `latest` | false]
--   rule [false | 's' | 'k': until, window ms | false, conflict, most ms | false]
-- Answer: wall, 1, [first | false of each job], [pressure of each queue], [expected | false of
--   each new job], [due of each new job] | false: as asked, [1 if replaced of each job] | false:
--   none; or wall, 0, limit, queue name, depth, bound, added, jobs, expected | false,
--   group | false, can fit (1 | 0), job | false, to | false, first | false.

local kind, standard, queues, jobs, limits = args[3], args[4], args[5], args[6], args[7]
local is_tick = args[8] -- then its jobs are of a schedule: born, and never stale
local ID, IN, PRIO, ITS_LANE, DELAY, EXPIRES, MOST, BYTES, SHEET = 1, 2, 3, 4, 5, 6, 7, 8, 9
local KEY_FIELD, ITS_GROUP, ITS_RESOURCE, PARENT, ASKED, PRINT, WINDOW = 10, 11, 12, 13, 14, 15, 16
local RULE, USES, AFTER, MARKS = 17, 18, 19, 20
local UNTIL, LASTS, CONFLICT, MOST_MS = 1, 2, 3, 4
local NEVER, LONGEST_PROMISE = 2 ^ 53, 86400000

-- -- what is known of the queues --

local COUNTS = { 's1', 's2', 's3', 's4', 'bytes' }
local BOUNDS = { 'd1', 'd2', 'd3', 'd4', 't1', 't2', 't3', 't4' }
local READY_COUNTS = { 'r0', 'r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7', 'r8', 'r9' }

local function number_or(text, other)
  if text then return tonumber(text) end
  return other
end

-- The bounds in force: what was tuned, else declared by the caller, else in the store.
local function bounds_of(got, declared)
  local said = declared or { got[7], got[8], got[9], got[10] }
  local wait = number_or(said[3])
  if got[13] then
    wait = tonumber(got[13])
    if wait == 0 then wait = nil end
  end
  return {
    jobs = tonumber(got[11] or said[1] or standard[1]),
    bytes = tonumber(got[12] or said[2] or standard[2]),
    wait = wait or nil,
    share = number_or(got[14] or said[4]),
  }
end

local function look_at(given)
  local name, declared, pace = given[1], given[2], given[3]
  local it = { name = name, declared = declared, pace = pace, mine = {}, size = 0, is_fair = given[4] }
  local number = queue_number(name)
  local got = {}
  if number then
    got = call('HMGET', P .. 'q:' .. number, 'kind', 's1', 's2', 's3', 's4', 'bytes',
      'd1', 'd2', 'd3', 'd4', 't1', 't2', 't3', 't4')
    it.kind = got[1]
  else
    declared = declared or standard
  end
  it.number = number
  it.depth = number_or(got[2], 0) + number_or(got[3], 0) + number_or(got[4], 0) + number_or(got[5], 0)
  it.running = number_or(got[5], 0)
  it.bytes = number_or(got[6], 0)
  it.bounds = bounds_of(got, declared)
  return it
end

for i = 1, #queues do queues[i] = look_at(queues[i]) end

-- -- refusals --

local function refusal(it, limit, depth, bound, added, fits)
  return { wall, 0, limit, it.name, depth, bound, added, it.depth, it.longest or false, false,
    fits and 1 or 0, false, false, false }
end

local function fault(job, limit)
  local it = queues[job[IN]]
  local said = refusal(it, limit, it.depth, 0, 0, false)
  said[12] = job[ID]
  return said
end

-- -- what was there before --

-- What an idempotency key stands for: {print, job} while its time lasts.
local function repeat_of(field)
  local text = call('HGET', P .. 'repeats', field)
  if not text or struct.unpack('>I6', text) <= wall then return nil end
  return { print = string.sub(text, 23), job = string.sub(text, 7, 22) }
end

local repeats = {} -- by field: what is in the store, and what is new of this batch

local function reused()
  local used = {}
  for i = 1, #jobs do
    local job = jobs[i]
    local field = job[ASKED]
    if field then
      if repeats[field] == nil then repeats[field] = repeat_of(field) or false end
      local known = repeats[field]
      local before = known and known.print or used[field]
      if before == nil then
        used[field] = job[PRINT]
      elseif before ~= job[PRINT] then
        return job
      end
    end
  end
end

local replaced, newcomers, holders_in_order = false, {}, {} -- the newest, by holder in the store
local clash, clash_with -- a job that must not meet its key held

-- The delay that a newcomer brings its holder, of which `left` may be put off.
local function most_delayed(job, left)
  if job[RULE][CONFLICT] == 'debounce' and left then return min(job[DELAY], left) end
  return job[DELAY]
end

-- A job finds its key held. Returns whether the holder takes its arguments.
local function meet(job, holder, made)
  local conflict = job[RULE] and job[RULE][CONFLICT] or 'existing'
  if conflict == 'existing' then return false end
  if conflict == 'raise' then
    if not clash then clash, clash_with = job, holder end
    return false
  end
  if made[holder] then
    local held = made[holder]
    held[SHEET], held[BYTES] = with_body(held[SHEET], job[SHEET]), job[BYTES]
    held[DELAY] = most_delayed(job, job[RULE][MOST_MS])
    return true
  end
  read_rows({ holder })
  local row = rows[holder]
  if not row or row[TOKEN] > 0 or row[STATE] > RUNNING then return false end
  if not newcomers[holder] then holders_in_order[#holders_in_order + 1] = holder end
  newcomers[holder] = job
  return true
end

-- For each job the one that stands for it already, in the store or before it in the batch.
local function find_firsts()
  local ids, asks_keys = {}, {}
  for i = 1, #jobs do
    ids[i] = jobs[i][ID]
    if jobs[i][KEY_FIELD] then asks_keys[#asks_keys + 1] = jobs[i][KEY_FIELD] end
  end
  local known, holders, made = {}, {}, {}
  local n = #ids
  for first = 1, n, 1000 do
    local last = min(n, first + 999)
    -- Nearly all are new: whether they are there is asked of the smallest values.
    local found = call('HMGET', P .. 'rows', unpack(ids, first, last))
    for i = first, last do
      if found[i - first + 1] then known[ids[i]] = true end
    end
  end
  n = #asks_keys
  for first = 1, n, 1000 do
    local last = min(n, first + 999)
    local found = call('HMGET', P .. 'keys', unpack(asks_keys, first, last))
    for i = first, last do holders[asks_keys[i]] = keying().holder(found[i - first + 1]) end
  end
  local firsts = {}
  for i = 1, #jobs do
    local job = jobs[i]
    local id, field, first = job[ID], job[ASKED], false
    local its = field and repeats[field]
    if its then
      first = its.job
    elseif known[id] then
      first = id
    elseif job[KEY_FIELD] then
      first = holders[job[KEY_FIELD]] or false
      if first and meet(job, first, made) then
        replaced = replaced or {}
        replaced[i] = 1
      end
    end
    if not first then
      known[id], made[id] = true, job
      if job[KEY_FIELD] then holders[job[KEY_FIELD]] = id end
    end
    if field and not its then
      repeats[field] = { print = job[PRINT], job = first or id, ends = wall + job[WINDOW] }
    end
    firsts[i] = first
  end
  for i = 1, replaced and #jobs or 0 do replaced[i] = replaced[i] or 0 end
  return firsts, made
end

local function moving(new)
  if #new == 0 then return nil end
  local seal = call('HGET', P .. 'meta', 'seal')
  if not seal then return nil end
  seal = cmsgpack.unpack(seal)
  local is_done = seal[3] and seal[3] ~= 0
  if not is_done then
    local are_born = not is_tick
    for i = 1, #new do are_born = are_born and new[i][PARENT] end
    if are_born then return nil end
  end
  local said = fault(new[1], 'moving')
  said[11], said[12], said[13] = is_done and 0 or 1, false, seal[1]
  return said
end

-- Whether all that a job waits for is in the store, or comes with it.
local function are_known(job, made)
  local text, ids = job[AFTER], {}
  for at = 1, #text, 17 do
    local other = string.sub(text, at, at + 15)
    if other == job[ID] then return false end
    if not made[other] then ids[#ids + 1] = other end
  end
  read_rows(ids)
  for i = 1, #ids do
    if not rows[ids[i]] then return false end
  end
  return true
end

-- The first of new jobs that waits in a circle of them, or behind one.
local function first_stuck(new)
  local left, behind, free = {}, {}, {}
  for i = 1, #new do
    if new[i][AFTER] then left[new[i][ID]] = 0 end
  end
  for i = 1, #new do
    local text, seen = new[i][AFTER] or '', {}
    for at = 1, #text, 17 do
      local other = string.sub(text, at, at + 15)
      if left[other] and not seen[other] then
        seen[other] = true
        behind[other] = behind[other] or {}
        table.insert(behind[other], new[i][ID])
        left[new[i][ID]] = left[new[i][ID]] + 1
      end
    end
  end
  for id, number in pairs(left) do
    if number == 0 then free[#free + 1] = id end
  end
  while #free > 0 do
    local waiting = behind[table.remove(free)] or {}
    for i = 1, #waiting do
      left[waiting[i]] = left[waiting[i]] - 1
      if left[waiting[i]] == 0 then free[#free + 1] = waiting[i] end
    end
  end
  for i = 1, #new do
    if (left[new[i][ID]] or 0) > 0 then return new[i] end
  end
end

-- What no waiting would mend.
local function at_fault(new, made)
  local forgotten = tonumber(call('HGET', P .. 'meta', 'forgotten_ms') or -1)
  for i = 1, #new do
    local job = new[i]
    local it = queues[job[IN]]
    if it.kind and it.kind ~= kind then return fault(job, 'kind') end
    if id_ms(job[ID]) <= forgotten and not is_tick then return fault(job, 'stale') end
    if job[AFTER] and not are_known(job, made) then return fault(job, 'after') end
  end
  local stuck = first_stuck(new)
  return stuck and fault(stuck, 'after')
end

-- -- bounds --

-- The places for these jobs: work born inside a job may use headroom.
local function places(most, mine)
  for i = 1, #mine do
    if not (is_tick or mine[i][PARENT]) then return most end
  end
  return most + max(10, floor(most / 10))
end

local function over_group(it)
  local most = max(1, floor(tonumber(string.format('%.6f', it.bounds.share * it.bounds.jobs))))
  local groups, order = {}, {}
  for i = 1, #it.mine do
    local group = it.mine[i][ITS_GROUP]
    if group then
      if not groups[group] then
        groups[group] = {}
        order[#order + 1] = group
      end
      table.insert(groups[group], it.mine[i])
    end
  end
  for i = 1, #order do
    local ours = groups[order[i]]
    local held = it.number and tonumber(call('HGET', P .. 'g:' .. it.number, order[i]) or 0) or 0
    local may = places(most, ours)
    if held + #ours > may then
      local said = refusal(it, 'group', held, may, #ours, #ours <= may)
      said[10] = order[i]
      return said
    end
  end
end

local function over_bound(it)
  local n, most = #it.mine, it.bounds.jobs
  if n > 0 and it.depth + n > most then
    most = places(most, it.mine)
    if it.depth + n > most then return refusal(it, 'jobs', it.depth, most, n, n <= most) end
  end
  if it.bytes + it.size > it.bounds.bytes then
    local room = it.bounds.bytes
    return refusal(it, 'bytes', it.bytes, room, it.size, it.size <= room)
  end
  if it.bounds.share then return over_group(it) end
end

-- -- the wait (the same sums as model/pressure/pace.py) --

local function expected_ms(pace, priority, ahead, running)
  if ahead == 0 and running < pace[2] then return 0 end
  local speed = pace[1][priority + 1]
  if speed <= 0 then return NEVER end
  local wait = (ahead + 1) / speed * 1000
  return wait < NEVER and floor(wait) or NEVER
end

-- Whether a job is in line from its append on.
local function is_next(job) return job[DELAY] <= 0 and not job[AFTER] end

-- Foretells the wait of each job of a queue that waits from now on.
local function foretell(it)
  if not it.pace then return end
  local ready = {}
  if it.number then
    local got = call('HMGET', P .. 'q:' .. it.number, unpack(READY_COUNTS))
    for p = 1, 10 do ready[p] = number_or(got[p], 0) end
  else
    for p = 1, 10 do ready[p] = 0 end
  end
  for i = 1, #it.mine do
    local job = it.mine[i]
    if is_next(job) then
      local ahead = 0
      for p = job[PRIO] + 1, 10 do ahead = ahead + ready[p] end
      local wait = expected_ms(it.pace, job[PRIO], ahead, it.running)
      job.expected = wait
      it.longest = max(it.longest or 0, wait)
      ready[job[PRIO] + 1] = ready[job[PRIO] + 1] + 1
    end
  end
end

local function late(it, limit, wait, i, bound)
  local mine, ahead = it.mine, 0
  for j = 1, i - 1 do
    if is_next(mine[j]) and mine[j][PRIO] >= mine[i][PRIO] then ahead = ahead + 1 end
  end
  local fits = ahead == 0 or it.pace[1][10] <= 0 or expected_ms(it.pace, 9, ahead, 0) <= bound
  local said = refusal(it, limit, wait, bound, #mine, fits)
  said[9] = wait
  return said
end

-- Of equal ones the last decides, as it does where pairs of (wait, index) are compared.
local function too_slow(it)
  if not it.pace then return nil end
  local longest, worst, excess, latest
  for i = 1, #it.mine do
    local job = it.mine[i]
    local wait = job.expected
    if wait then
      if not (is_tick or job[PARENT]) and (not longest or wait >= longest) then longest, worst = wait, i end
      if job[EXPIRES] then
        local over = wait - max(0, job[EXPIRES] - it.pace[3])
        if not excess or over >= excess then excess, latest = over, i end
      end
    end
  end
  local most = it.bounds.wait
  if longest and most and longest > most then return late(it, 'wait', longest, worst, most) end
  if excess and excess > 0 then
    local wait = it.mine[latest].expected
    return late(it, 'deadline', wait, latest, wait - excess)
  end
end
