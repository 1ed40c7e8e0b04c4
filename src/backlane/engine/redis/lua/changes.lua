-- Changes: what people and sweeps do to jobs. Behind `moves.lua`.

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
  if row[KEY] and keying().would_hold(row) then keying().take(id, row) end
  count(id, row, 1)
  entered(id, row)
end

-- Forgets a job that is not running, and all that was kept of it.
local function forget(id, row, is_pruned)
  count(id, row, -1)
  if row[KEY] and not (is_pruned and keying().ends(row)) then keying().free(id, row) end
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
  if row[KEY] then push(zrems, 'by_key', keying().name(row) .. '\0' .. member(id, row)) end
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
