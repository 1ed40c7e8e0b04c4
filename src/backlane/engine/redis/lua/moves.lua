-- The moves of a job: the only place where counters are written and bells are noted.

local LEVEL = 2 ^ 43 -- between two ranks of a ready set; a place is below it until 2248
local NEVER_ENDS = 2 ^ 52
local ended_jobs = {} -- [id, how, ..]: whose edges are to be followed (edges.lua)

local function ready_key(row)
  local key = label(label('ready:', row[QUEUE]) .. ':', row[LANE])
  if row[RESOURCE] then key = key .. ':' .. row[RESOURCE] end
  return key
end

-- Where a row is, by its state: the key of a sorted set and its score there.
local function where(row)
  local state = row[STATE]
  if state == READY then
    local x = row[EXTRA]
    return ready_key(row), (9 - row[RANK]) * LEVEL + (x and x[E_VIRTUAL] or row[PLACE])
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

-- Of a virtual place no window of scores tells when it was due: when its rank rises is kept.
local function count_ageing(id, row, by)
  if by < 0 then
    push(zrems, 'aging', member(id, row))
  elseif row[RANK] < 9 then
    local levels = max(0, row[RANK] - row[PRIORITY]) + 1
    push(zadds, 'aging', row[PLACE] + levels * 300000, member(id, row))
  end
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
    count_ageing(id, row, by)
  elseif state == READY and by > 0 and aged_rank(row) > row[RANK] then
    push(zadds, 'unaged', 0, member(id, row)) -- an old place: the next sweep is to age it
  end
  if state > RUNNING then return end
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

-- Whether a job without a window holds its key, if its rule is such.
local function holds_key(row)
  local rule, state = row[EXTRA] and row[EXTRA][E_RULE], row[STATE]
  if rule == 's' then return row[TOKEN] == 0 and state <= RUNNING end
  return state <= RUNNING or rule == 'k' and state == FAILED
end

-- Frees the key of a job, unless another holds it: see `keys` in model.lua.
local function free_key(id, row)
  local held = call('HGET', P .. 'keys', row[KEY])
  if held and string.sub(held, 1, 16) == id then
    push(hdels, 'keys', row[KEY])
    if #held > 16 then push(zrems, 'keys_until', row[KEY]) end
  end
end

-- Who holds a key now by what `keys` says of it, or nil.
local function holder_of(held)
  if held and (#held == 16 or struct.unpack('>I6', held, 17) > wall) then
    return string.sub(held, 1, 16)
  end
end

-- Until when the window of a job's key lasts; nil: it has none.
local function key_until(row)
  local rule = row[EXTRA] and row[EXTRA][E_RULE]
  return type(rule) == 'number' and rule or nil
end

-- Whether a job as it is would hold its key, if nobody else did.
local function would_hold_key(row)
  local ends = key_until(row)
  if ends then return ends > wall end
  return holds_key(row)
end

local function take_key(id, row)
  local ends = key_until(row)
  push(hsets, 'keys', row[KEY], ends and id .. struct.pack('>I6', ends) or id)
  if ends then push(zadds, 'keys_until', ends, row[KEY]) end
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

-- Whether an id is later than another: by bytes, for Lua compares text as the locale does.
local function is_later(id, other)
  for at = 1, 13, 4 do
    local ours, theirs = struct.unpack('>I4', id, at), struct.unpack('>I4', other, at)
    if ours ~= theirs then return ours > theirs end
  end
  return false
end

-- Keeps the result of a task that is to be at hand, unless there is one of a later id.
local function keep_latest(task, id, result, ended)
  local known = call('HGET', P .. 'latest', task)
  if known and is_later(known, id) then return end
  call('HSET', P .. 'latest', task, id .. struct.pack('>I6', ended or wall) .. result)
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
    if x[E_GENERATION] > 0 then push(hdels, 'awaits', id) end
    if x[E_TURNS] then gating().let_go_of_turns(x) end
  end
  count(id, row, 1)
  if result then
    push(hsets, 'results', id, result)
    if x and x[E_LATEST] then keep_latest(x[E_LATEST], id, result) end
  end
  add(label('q:', row[QUEUE]), 1, label('f', state))
  if row[KEY] and not key_until(row) and not holds_key(row) then free_key(id, row) end
  ended_jobs[#ended_jobs + 1], ended_jobs[#ended_jobs + 2] = id, state
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

-- A finished job is as new: in line, its executions counted from zero.
local function renew(id, row)
  count(id, row, -1)
  row[ATTEMPT], row[CRASHES], row[RAN] = 0, 0, 0
  row[DEADLINE], row[PARKED], row[ENDED], row[REASON] = false, false, false, false
  push(hdels, 'results', id)
  push(hdels, 'progress', id)
  row[PLACE], row[RANK] = wall, row[PRIORITY]
  if row[EXTRA] then row[EXTRA][E_VIRTUAL], row[EXTRA][E_RETAINED] = false, false end
  line_up(id, row, true)
  if row[KEY] and would_hold_key(row) then take_key(id, row) end
  count(id, row, 1)
  entered(id, row)
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
  if row[KEY] and not (is_pruned and key_until(row)) then free_key(id, row) end
  if row[EXTRA] then
    if row[EXTRA][E_TURNS] then gating().let_go_of_turns(row[EXTRA]) end
    if row[EXTRA][E_GENERATION] > 0 then push(hdels, 'awaits', id) end
  end
  if row[STATE] <= RUNNING then -- to those that wait for it, it was cancelled
    ended_jobs[#ended_jobs + 1], ended_jobs[#ended_jobs + 2] = id, CANCELLED
  end
  rows[id], changed[id] = false, nil
  push(hdels, 'rows', id)
  push(hdels, 'bodies', id)
  push(hdels, 'results', id)
  push(hdels, 'progress', id)
  push(hdels, 'errors', id)
  push(hdels, 'steps', id)
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
  local names = row[EXTRA] and row[EXTRA][E_NAMES] or {}
  for i = 1, #names do push(zrems, 'by_name', names[i] .. '\0' .. member(id, row)) end
  rung_jobs[id] = true
  if is_pruned then
    -- An id is older than its job's end, unless its maker's clock was ahead: then its own
    -- time would make everybody's ids stale.
    local made = min(id_ms(id), row[ENDED] or 0)
    local known = tonumber(call('HGET', P .. 'meta', 'forgotten_ms') or -1)
    if made > known then call('HSET', P .. 'meta', 'forgotten_ms', made) end
  end
end

-- To another queue (its number), in line there; the priority that ageing gave stays behind.
local function move(id, row, queue)
  local is_due = row[STATE] ~= SCHEDULED
  count(id, row, -1)
  row[QUEUE], row[RANK] = queue, row[PRIORITY]
  if row[EXTRA] then row[EXTRA][E_VIRTUAL] = false end
  if row[RESOURCE] then add_source(row) end
  line_up(id, row, is_due)
  count(id, row, 1)
  entered(id, row)
end

local function reprioritise(id, row, priority)
  count(id, row, -1)
  row[PRIORITY], row[RANK] = priority, priority
  count(id, row, 1)
  entered(id, row)
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
