-- restore: [jobs [[id, row, sheet, progress | false, result | false, errors | false,
--   queue, kind, resource | false, steps [name, result, ..] | false, marks | false], ..], repeats [[field, until ms, job, print], ..],
--   which move, bounds of a new queue] -> wall, [id, ..] of those that were new
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
  if job[11] then mark(id, row, job[11]) end
  count(id, row, 1)
  if row[RESOURCE] then add_source(row) end
  if row[KEY] then
    push(zadds, 'by_key', 0, key_name(row) .. '\0' .. member(id, row))
    if row[STATE] <= RUNNING then call('HSETNX', P .. 'keys', row[KEY], id) end
  end
  if row[GROUP] then push(zadds, 'by_group', 0, row[GROUP] .. '\0' .. member(id, row)) end
  if row[STATE] <= RUNNING then rung_queues[row[QUEUE]] = true end
end

local ids, all_ids, new = {}, {}, {}
for i = 1, #given do all_ids[i] = given[i][1] end
read_rows(all_ids)
for i = 1, #given do
  local id = all_ids[i]
  if not rows[id] and not latest[id] then
    latest[id] = true -- a part that has it twice has it once
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
ring()
return { wall, ids }
