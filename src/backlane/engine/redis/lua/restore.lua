-- restore: [jobs [[id, row, sheet, progress | false, result | false, errors | false,
--   queue, kind, resource | false, steps [name, result, ..] | false, marks | false, extra | false,
--   open edges as in a sheet, ids it waited for], ..], repeats [[field, until ms, job, print],
--   ..], which move, bounds of a new queue] -> wall, [id, ..] of those that were new
-- A row comes without its sequence and the numbers of its queue and resource.
--   arrived  hash move -> the ids of its latest part: those are known, forgotten or not

local given, repeats, mover, new_bounds = args[3], args[4], args[5], args[6]

local latest = {}
local arrived = mover ~= '' and call('HGET', P .. 'arrived', mover) or ''
for at = 1, #arrived, 16 do latest[string.sub(arrived, at, at + 15)] = true end

local function take_in_steps(id, told)
  local steps = {}
  for i = 1, #told, 2 do steps[#steps + 1] = { told[i], told[i + 1] } end
  push(hsets, 'steps', id, cmsgpack.pack(steps))
end

local taken_keys = {} -- by this call
local opened = {} -- [id, its open edges]

local function take_in(id, job)
  local row = job[2]
  row[QUEUE] = queue_number(job[7]) or make_queue(job[7], job[8], new_bounds)
  row[RESOURCE] = job[9] and resource_number(job[9])
  rows[id], changed[id], rung_jobs[id] = row, true, true
  push(hsets, 'bodies', id, job[3])
  if job[4] then push(hsets, 'progress', id, job[4]) end
  if job[5] then push(hsets, 'results', id, job[5]) end
  if job[6] then push(hsets, 'errors', id, job[6]) end
  if job[10] then take_in_steps(id, job[10]) end
  if job[12] then
    local x = extra(row)
    for i = 1, #job[12] do x[i] = job[12][i] end
    if x[E_TURNS] then gating().take_turns(x) end
  end
  if job[11] then mark(id, row, job[11]) end
  local after = row[EXTRA] and row[EXTRA][E_AFTER] or 0
  if row[STATE] <= RUNNING and #job[13] + #job[14] + after > 0 then
    edging().tie_again(id, row, job[13], job[14], after > 0 and string.sub(job[3], -17 * after) or '')
    opened[#opened + 1] = { id, job[13] }
  elseif row[STATE] > RUNNING then
    ended_jobs[#ended_jobs + 1], ended_jobs[#ended_jobs + 2] = id, row[STATE]
  end
  local x = row[EXTRA]
  if (row[STATE] == READY or x and x[E_ON] > 0) and line(row[QUEUE]).is_fair then
    extra(row)[E_VIRTUAL] = fairness().place(row)
  end
  if row[STATE] == BLOCKED and not (x and x[E_OPEN] + x[E_ON] > 0) then row[STATE] = READY end
  count(id, row, 1)
  if row[RESOURCE] then add_source(row) end
  if row[KEY] then
    push(zadds, 'by_key', 0, keying().name(row) .. '\0' .. member(id, row))
    if keying().would_hold(row) and not (taken_keys[row[KEY]] or keying().holder(call('HGET', P .. 'keys', row[KEY]))) then
      taken_keys[row[KEY]] = true
      keying().take(id, row)
    end
  end
  if row[GROUP] then push(zadds, 'by_group', 0, row[GROUP] .. '\0' .. member(id, row)) end
  if row[STATE] <= RUNNING then rung_queues[row[QUEUE]] = true end
end

local ids, all_ids, new, is_new = {}, {}, {}, {}
for i = 1, #given do all_ids[i] = given[i][1] end
read_rows(all_ids)
for i = 1, #given do
  local id = all_ids[i]
  if not rows[id] and not latest[id] then
    latest[id] = true -- a part that has it twice has it once
    is_new[id] = true
    new[#new + 1], ids[#ids + 1] = given[i], id
  end
end
if #new > 0 then
  local first = enlist(ids)
  for i = 1, #new do
    new[i][2][SEQ] = first + i - 1
    take_in(ids[i], new[i])
  end
end
for i = 1, #repeats do
  local field, ends = repeats[i][1], repeats[i][2]
  local known = call('HGET', P .. 'repeats', field)
  if not known or struct.unpack('>I6', known) <= wall then
    push(hsets, 'repeats', field, struct.pack('>I6', ends) .. repeats[i][3] .. repeats[i][4])
    push(zadds, 'repeats_until', ends, field)
  end
end
if mover ~= '' then
  if #given > 0 then
    call('HSET', P .. 'arrived', mover, table.concat(all_ids))
  else
    call('HDEL', P .. 'arrived', mover)
  end
end
flush()
-- Open edges to what has ended here before; other edges to it were followed then.
for i = 1, #opened do
  local edges = edging().each_edge(opened[i][2])
  local others = {}
  for j = 1, #edges do others[j] = edges[j][1] end
  read_rows(others)
  for j = 1, #edges do
    local id, other = opened[i][1], rows[edges[j][1]]
    if other and other[STATE] > RUNNING and not is_new[edges[j][1]] and rows[id][STATE] == BLOCKED then
      edging().follow_one(edges[j][1], other[STATE], id, edges[j][2])
    end
  end
end
follow()
flush()
ring()
return { wall, ids }
