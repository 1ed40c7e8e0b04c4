-- The moves of a job: the only place where counters are written and bells are noted.

local LEVEL = 2 ^ 43 -- between two ranks of a ready set; a place is below it until 2248
local NEVER_ENDS = 2 ^ 52
local ended_jobs = {} -- [id, how, ..]: whose edges are to be followed (edges.lua)

local function ready_key(row)
  local key = label(label('ready:', row[QUEUE]) .. ':', row[LANE])
  if row[RESOURCE] then key = key .. ':' .. row[RESOURCE] end
  return key
end

-- Where a ready row stands in line: the smallest goes first.
local function score_of(row)
  local x = row[EXTRA]
  return (9 - row[RANK]) * LEVEL + (x and x[E_VIRTUAL] or row[PLACE])
end

-- Where a row is, by its state: the key of a sorted set and its score there.
local function where(row)
  local state = row[STATE]
  if state == READY then
    return ready_key(row), score_of(row)
  elseif state == RUNNING then
    return 'leases', row[LEASE_END]
  elseif state == SCHEDULED then
    return 'scheduled', row[PLACE]
  elseif state == BLOCKED then
    return 'blocked', row[SEQ]
  elseif row[EXTRA] and row[EXTRA][E_RETAINED] then
    return 'retained', row[EXTRA][E_RETAINED]
  elseif row[EXTRA] and row[EXTRA][E_KEEP] then
    local keep = row[EXTRA][E_KEEP]
    return 'kept', keep < 0 and NEVER_ENDS or row[ENDED] + keep
  elseif state == FAILED then
    return label('failed:', row[QUEUE]), row[ENDED]
  end
  return label('done:', row[QUEUE]), row[ENDED]
end

-- The rank that a waiting row should have by now: 5 minutes are a level of priority.
local function aged_rank(row)
  local waited = max(0, wall - row[PLACE])
  return max(row[RANK], min(9, row[PRIORITY] + floor(waited / 300000)))
end

-- Puts a row where its state and order say (by +1), or takes it from there (by -1).
-- `is_taken`: a ZPOPMIN has taken it out of its set already.
local function count(id, row, by, is_taken)
  local state, queue, x = row[STATE], row[QUEUE], row[EXTRA]
  if not is_taken then
    local key, score = where(row)
    if by > 0 then
      push(zadds, key, score, member(id, row))
    else
      push(zrems, key, member(id, row))
    end
  end
  if state == FAILED then -- by sequence too: what `find` looks for dead letters in
    if by > 0 then
      push(zadds, 'dead', row[SEQ], member(id, row))
    else
      push(zrems, 'dead', member(id, row))
    end
  elseif state == READY and x and x[E_VIRTUAL] then
    fairness().count_ageing(id, row, by)
  elseif state == READY and by > 0 and aged_rank(row) > row[RANK] then
    push(zadds, 'unaged', 0, member(id, row)) -- an old place: the next sweep is to age it
  end
  if state > RUNNING then return end
  if state == BLOCKED and lines[queue] then lines[queue].blocked = lines[queue].blocked + by end
  if x then
    if x[E_USES] then gating().count_uses(id, row, by) end
    -- Who waits for its queue's own limit may go on.
    if state == RUNNING and by < 0 and line(queue).is_limited then rung_queues[queue] = true end
  end
  local q = label('q:', queue)
  add(q, by, label('s', state))
  add(q, by * row[SIZE], 'bytes')
  if state == READY then
    add(q, by, label('r', row[PRIORITY]))
  elseif state == RUNNING then
    add(q, by, label('u', row[PRIORITY]))
  end
  if row[GROUP] then add(label('g:', queue), by, row[GROUP]) end
  if row[DEADLINE] and state ~= RUNNING then
    if by > 0 then
      push(zadds, 'deadlines', row[DEADLINE], member(id, row))
    else
      push(zrems, 'deadlines', member(id, row))
    end
  end
end

-- The row changed where it is.
local function change(id, row)
  row[REVISION] = row[REVISION] + 1
  changed[id] = true
  rung_jobs[id] = true
end

-- The row came to where it is.
local function entered(id, row)
  if row[CANCELLING] and row[STATE] ~= RUNNING then
    row[CANCELLING] = false
    push(hdels, 'flagged', id)
  end
  if row[STATE] < RUNNING then rung_queues[row[QUEUE]] = true end
  change(id, row)
end

-- The places of a row that never ran, filled: an array must have no holes.
local function widen(row)
  if row[OWNER] == nil then
    row[OWNER], row[LEASE_END], row[STARTED], row[CANCELLING] = false, 0, false, false
    row[ENDED], row[RAN], row[REASON] = false, 0, false
  end
end

-- -- getting in line --

-- What few jobs have, made if the row had nothing of it.
local function extra(row)
  if not row[EXTRA] then
    widen(row)
    row[EXTRA] = { false, 0, false, 0, 0, 0, false, false, false, false, false, false }
  end
  return row[EXTRA]
end

-- Decides how a row waits that counts nowhere just now. Nothing becomes ready otherwise.
-- `woken`: the use that it was blocked on, which lets it in.
local function line_up(id, row, is_due, woken)
  local x = row[EXTRA]
  row[STATE] = READY
  if x then x[E_ON] = 0 end
  if x and x[E_OPEN] > 0 then
    row[STATE] = BLOCKED
  elseif not is_due then
    row[STATE] = SCHEDULED
  else
    if line(row[QUEUE]).is_fair then
      x = extra(row)
      x[E_VIRTUAL] = x[E_VIRTUAL] or fairness().place(row) -- a job keeps the place it got
    end
    if x and x[E_USES] then
      x[E_ON] = gating().first_full(id, row, woken)
      if x[E_ON] > 0 then row[STATE] = BLOCKED end
    end
  end
  if row[STATE] == READY and row[REVISION] > 1 then -- an offer of before counts no more
    push(zrems, label(label('offered:', row[QUEUE]) .. ':', row[LANE]), member(id, row))
  end
end

local function get_in_line(id, row, is_due, woken)
  count(id, row, -1)
  line_up(id, row, is_due, woken)
  count(id, row, 1)
  entered(id, row)
end

-- Due after a delay, at a new place.
local function put_off(id, row, delay_ms)
  count(id, row, -1)
  row[PLACE] = wall + max(0, delay_ms)
  row[RANK] = row[PRIORITY]
  if row[EXTRA] then row[EXTRA][E_VIRTUAL] = false end
  line_up(id, row, delay_ms <= 0)
  count(id, row, 1)
  entered(id, row)
end

-- In line, at the place it had.
local function put_back(id, row)
  count(id, row, -1)
  row[RANK] = row[PRIORITY]
  line_up(id, row, true)
  count(id, row, 1)
  entered(id, row)
end

-- Ends a job. `reason` is text or false, `result` bytes or false.
local function finish(id, row, state, reason, result, is_taken)
  count(id, row, -1, is_taken)
  widen(row)
  if row[CANCELLING] then
    row[CANCELLING] = false
    push(hdels, 'flagged', id)
  end
  row[STATE], row[ENDED], row[REASON] = state, wall, reason or false
  local x = row[EXTRA]
  if x then
    x[E_ON], x[E_OPEN], x[E_RETAINED] = 0, 0, false
    if x[E_TURNS] then gating().let_go_of_turns(x) end
  end
  count(id, row, 1)
  if result then
    push(hsets, 'results', id, result)
    if x and x[E_LATEST] then newest().keep(x[E_LATEST], id, result) end
  end
  add(label('q:', row[QUEUE]), 1, label('f', state))
  if row[KEY] then keying().let_go(id, row) end
  ended_jobs[#ended_jobs + 1], ended_jobs[#ended_jobs + 2] = id, state
  change(id, row)
end

-- Lets a resource know of a ready set that its jobs may be in, and the queue of the resource.
local function add_source(row)
  local number, queue = row[RESOURCE], row[QUEUE]
  local source = queue .. ':' .. row[LANE]
  if call('SADD', P .. 'sources:' .. number, source) == 0 then return end
  local it = line(queue)
  it.res = it.res or {}
  for i = 1, #it.res do
    if it.res[i] == number then return end
  end
  it.res[#it.res + 1] = number
  call('HSET', P .. label('q:', queue), 'res', cmsgpack.pack(it.res))
end

-- After an execution that nobody saw the end of: again from its place, if it may.
local function go_on(id, row)
  if row[CANCELLING] then
    finish(id, row, CANCELLED)
  elseif row[ATTEMPT] >= row[ATTEMPTS] or row[CRASHES] >= 3 then
    finish(id, row, FAILED, 'crashed')
  else
    put_back(id, row)
  end
end

-- Nobody holds the lease any more: the execution counts, the place is kept.
local function lapse(id, row)
  row[ATTEMPT] = row[ATTEMPT] + 1
  go_on(id, row)
end
