-- amend: [selection, limit, before, most, change, value, bounds of a new queue] ->
--   wall, before | nil, rows looked at, [id changed, ..], [id flagged, ..],
--   [id skipped, state, why, what, ..]
-- `change` is cancel, redrive, reprioritise, delete or move; `value` a priority or the name of
-- a queue. What is in words is said in Python (`amend.py`), for each `why`.

local change_name, value, new_bounds = args[7], args[8], args[9]
local sealed = call('HGET', P .. 'meta', 'seal')
local changed_ids, flagged_ids, skipped = {}, {}, {}
local full = {} -- by queue: what its bounds are and how much it holds

local function bounds_of(queue)
  local it = full[queue]
  if it then return it end
  local got = call('HMGET', P .. 'q:' .. queue, 't1', 't2', 't4', 'd1', 'd2', 'd4',
    's1', 's2', 's3', 's4', 'bytes')
  for i = 1, 11 do got[i] = tonumber(got[i] or nil) end
  it = {
    max_jobs = got[1] or got[4],
    max_bytes = got[2] or got[5],
    share = got[3] or got[6],
    jobs = (got[7] or 0) + (got[8] or 0) + (got[9] or 0) + (got[10] or 0),
    bytes = got[11] or 0,
    groups = {},
  }
  full[queue] = it
  return it
end

local function held_by(queue, group)
  local groups = bounds_of(queue).groups
  if not groups[group] then
    groups[group] = tonumber(call('HGET', P .. 'g:' .. queue, group) or 0)
  end
  return groups[group]
end

local redriven_keys = {} -- fields of `keys` taken in this call
local target, target_kind

-- Whether a job would hold its key, were it ready.
local function would_hold_again(row)
  local state = row[STATE]
  row[STATE] = READY
  local holds = keying().would_hold(row)
  row[STATE] = state
  return holds
end

local function why_not_again(id, row)
  local state = row[STATE]
  if state == SCHEDULED then return nil end
  if state <= RUNNING or state == SUCCEEDED then return 'is' end
  if row[KEY] and would_hold_again(row) then
    local holder = redriven_keys[row[KEY]] or keying().holder(call('HGET', P .. 'keys', row[KEY]))
    if holder and holder ~= id then return 'key', holder end
  end
  local line_of = bounds_of(row[QUEUE])
  if line_of.jobs + 1 > line_of.max_jobs or line_of.bytes + row[SIZE] > line_of.max_bytes then
    return 'full', queue_name(row[QUEUE])
  end
  local group = row[GROUP]
  if group and line_of.share then
    -- Rounded first: 0.29 of 100 comes to a hair below 29.
    local most = max(1, floor(line_of.share * line_of.max_jobs + 0.0000005))
    if held_by(row[QUEUE], group) >= most then
      return 'share', group .. '\0' .. queue_name(row[QUEUE])
    end
  end
  return nil
end

local function why_not_to(row)
  if row[STATE] >= RUNNING then return 'is' end
  if row[QUEUE] == target then return 'there' end
  if target and line(target).kind ~= line(row[QUEUE]).kind then
    return 'kind', line(target).kind
  end
  return nil
end

local function why_not(id, row)
  local state = row[STATE]
  if sealed and not (change_name == 'cancel' and state == RUNNING) then return 'sealed', sealed end
  if change_name == 'cancel' or change_name == 'reprioritise' then
    return state > RUNNING and 'already' or nil
  end
  if change_name == 'redrive' then return why_not_again(id, row) end
  if change_name == 'delete' then return state == RUNNING and 'running' or nil end
  return why_not_to(row)
end

local function redrive(id, row)
  if row[STATE] == SCHEDULED then
    put_off(id, row, 0)
    return
  end
  local line_of = bounds_of(row[QUEUE])
  line_of.jobs, line_of.bytes = line_of.jobs + 1, line_of.bytes + row[SIZE]
  if row[GROUP] then line_of.groups[row[GROUP]] = held_by(row[QUEUE], row[GROUP]) + 1 end
  if row[KEY] and would_hold_again(row) then redriven_keys[row[KEY]] = id end
  edging().close(id)
  if row[EXTRA] and row[EXTRA][E_GENERATION] > 0 then edging().forget_awaited(id) end
  if row[EXTRA] and row[EXTRA][E_AFTER] > 0 then
    edging().tie_after(id, row, edging().after(id, row))
  end
  renew(id, row)
end

local function carry_out(id, row)
  if change_name == 'cancel' then
    finish(id, row, CANCELLED)
  elseif change_name == 'redrive' then
    redrive(id, row)
  elseif change_name == 'reprioritise' then
    reprioritise(id, row, value)
  elseif change_name == 'delete' then
    forget(id, row)
  else
    target = target or make_queue(value, line(row[QUEUE]).kind, new_bounds)
    move(id, row, target)
  end
end

if change_name ~= 'redrive' then make_way() end
if change_name == 'move' then target = queue_number(value) end
local found, before, looked = select_jobs(args[4], args[5], args[6])
local stuck = {} -- who would wait in vain, as it is before the call
for i = 1, change_name == 'redrive' and #found or 0 do
  local row = rows[found[i]]
  if row[STATE] > RUNNING and row[EXTRA] and row[EXTRA][E_AFTER] > 0 then
    local job, state = edging().in_vain(found[i], row)
    stuck[found[i]] = job and job .. state
  end
end
for i = 1, #found do
  local id = found[i]
  local row = rows[id]
  local why, what = why_not(id, row)
  if not why and stuck[id] then why, what = 'stuck', stuck[id] end
  if why then
    local at = #skipped
    skipped[at + 1], skipped[at + 2], skipped[at + 3] = id, row[STATE], why
    skipped[at + 4] = what or ''
  elseif change_name == 'cancel' and row[STATE] == RUNNING then
    flag(id, row)
    flagged_ids[#flagged_ids + 1] = id
  else
    carry_out(id, row)
    changed_ids[#changed_ids + 1] = id
  end
end
follow()
flush()
ring(nil, true)
return { wall, before, looked, changed_ids, flagged_ids, skipped }
