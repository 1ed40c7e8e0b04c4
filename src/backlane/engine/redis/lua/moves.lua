-- The moves of a job: the only place where counters are written and bells are noted.

local LEVEL = 2 ^ 43 -- between two ranks of a ready set; a place is below it until 2248
local rung_queues, rung_jobs = {}, {} -- numbers of queues, ids of jobs: for `ring()`

local function ready_key(row)
  local key = label(label('ready:', row[QUEUE]) .. ':', row[LANE])
  if row[RESOURCE] then key = key .. ':' .. row[RESOURCE] end
  return key
end

-- Where a row is, by its state: the key of a sorted set and its score there.
local function where(row)
  local state = row[STATE]
  if state == READY then
    return ready_key(row), (9 - row[RANK]) * LEVEL + row[PLACE]
  elseif state == RUNNING then
    return 'leases', row[LEASE_END]
  elseif state == SCHEDULED then
    return 'scheduled', row[PLACE]
  elseif state == FAILED then
    return label('failed:', row[QUEUE]), row[ENDED]
  elseif state > RUNNING then
    return label('done:', row[QUEUE]), row[ENDED]
  end
  return 'blocked', row[PLACE]
end

-- The rank that a waiting row should have by now: 5 minutes are a level of priority.
local function aged_rank(row)
  local waited = max(0, wall - row[PLACE])
  return max(row[RANK], min(9, row[PRIORITY] + floor(waited / 300000)))
end

-- Puts a row where its state and order say (by +1), or takes it from there (by -1).
-- `is_taken`: a ZPOPMIN has taken it out of its set already.
local function count(id, row, by, is_taken)
  local state, queue = row[STATE], row[QUEUE]
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
  elseif state == READY and by > 0 and aged_rank(row) > row[RANK] then
    push(zadds, 'unaged', 0, member(id, row)) -- an old place: the next sweep is to age it
  end
  if state > RUNNING then return end
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

local function enter(id, row, state, is_taken)
  count(id, row, -1, is_taken)
  row[STATE] = state
  if state ~= RUNNING and row[CANCELLING] then
    row[CANCELLING] = false
    push(hdels, 'flagged', id)
  end
  count(id, row, 1)
  if state <= READY then rung_queues[row[QUEUE]] = true end
  change(id, row)
end

-- Due after a delay, at a new place.
local function put_off(id, row, delay_ms)
  count(id, row, -1)
  local before = row[STATE]
  row[PLACE] = wall + max(0, delay_ms)
  row[RANK] = row[PRIORITY]
  row[STATE] = delay_ms > 0 and SCHEDULED or READY
  if before == RUNNING and row[CANCELLING] then
    row[CANCELLING] = false
    push(hdels, 'flagged', id)
  end
  count(id, row, 1)
  rung_queues[row[QUEUE]] = true
  change(id, row)
end

-- Ready, at the place it had.
local function put_back(id, row, is_taken)
  count(id, row, -1, is_taken)
  row[RANK] = row[PRIORITY]
  row[STATE] = READY
  if row[CANCELLING] then
    row[CANCELLING] = false
    push(hdels, 'flagged', id)
  end
  count(id, row, 1)
  rung_queues[row[QUEUE]] = true
  change(id, row)
end

-- The places of a row that never ran, filled: an array must have no holes.
local function widen(row)
  if row[OWNER] == nil then
    row[OWNER], row[LEASE_END], row[STARTED], row[CANCELLING] = false, 0, false, false
    row[ENDED], row[RAN], row[REASON] = false, 0, false
  end
end

-- `keys` of holders that this call read or changed, by field; let_go reads nothing.
local function let_go_of_key(id, row)
  if row[KEY] and call('HGET', P .. 'keys', row[KEY]) == id then push(hdels, 'keys', row[KEY]) end
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
  count(id, row, 1)
  if result then push(hsets, 'results', id, result) end
  add(label('q:', row[QUEUE]), 1, label('f', state))
  let_go_of_key(id, row)
  change(id, row)
end

-- Asks a running job to stop.
local function flag(id, row)
  if not row[CANCELLING] then
    row[CANCELLING] = true
    push(hsets, 'flagged', id, row[OWNER])
    rung_queues[row[QUEUE]] = true
    change(id, row)
  end
end

-- A finished job is as new: ready, its executions counted from zero.
local function renew(id, row)
  count(id, row, -1)
  row[ATTEMPT], row[CRASHES], row[RAN] = 0, 0, 0
  row[DEADLINE], row[PARKED], row[ENDED], row[REASON] = false, false, false, false
  push(hdels, 'results', id)
  push(hdels, 'progress', id)
  if row[KEY] then push(hsets, 'keys', row[KEY], id) end
  row[PLACE], row[RANK], row[STATE] = wall, row[PRIORITY], READY
  count(id, row, 1)
  rung_queues[row[QUEUE]] = true
  change(id, row)
end

-- What follows the scope in a field: "4:mailwelcome" is scope "mail", name "welcome".
local function key_name(row)
  local length, rest = string.match(row[KEY], '^(%d+):(.*)$')
  return string.sub(rest, length + 1)
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

-- Forgets a job that is not running, and all that was kept of it.
local BLOCK = 1024
local function forget(id, row, is_pruned)
  count(id, row, -1)
  let_go_of_key(id, row)
  rows[id], changed[id] = false, nil
  push(hdels, 'rows', id)
  push(hdels, 'bodies', id)
  push(hdels, 'results', id)
  push(hdels, 'progress', id)
  push(hdels, 'errors', id)
  local seq = row[SEQ]
  local block = floor(seq / BLOCK)
  if call('HINCRBY', P .. 'orders', block, -1) <= 0 then
    call('HDEL', P .. 'orders', block)
    call('DEL', P .. 'order:' .. block)
  else
    call('SETRANGE', P .. 'order:' .. block, (seq % BLOCK) * 16, string.rep('\0', 16))
  end
  if row[KEY] then push(zrems, 'by_key', key_name(row) .. '\0' .. member(id, row)) end
  if row[GROUP] then push(zrems, 'by_group', row[GROUP] .. '\0' .. member(id, row)) end
  rung_jobs[id] = true
  if is_pruned then
    -- An id is older than its job's end, unless its maker's clock was ahead: then its own
    -- time would make everybody's ids stale.
    local made = min(id_ms(id), row[ENDED] or 0)
    local known = tonumber(call('HGET', P .. 'meta', 'forgotten_ms') or -1)
    if made > known then call('HSET', P .. 'meta', 'forgotten_ms', made) end
  end
end

-- To another queue (its number); the priority that ageing gave stays behind.
local function move(id, row, queue)
  count(id, row, -1)
  row[QUEUE], row[RANK] = queue, row[PRIORITY]
  if row[RESOURCE] then add_source(row) end
  count(id, row, 1)
  if row[STATE] <= READY then rung_queues[queue] = true end
  change(id, row)
end

local function reprioritise(id, row, priority)
  count(id, row, -1)
  row[PRIORITY], row[RANK] = priority, priority
  count(id, row, 1)
  if row[STATE] <= READY then rung_queues[row[QUEUE]] = true end
  change(id, row)
end

-- Lets a row wait at another rank; not a change that its job's watchers see.
local function age(id, row, rank)
  count(id, row, -1)
  row[RANK] = rank
  count(id, row, 1)
  changed[id] = true
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
