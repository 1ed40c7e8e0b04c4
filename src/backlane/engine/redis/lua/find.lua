-- find: [selection, limit, before, most, is_whole] ->
--   wall, before | nil, rows looked at, [number, name of a queue, ..],
--   [id, row, sheet, progress, result, errors, ..] (the last two nil unless whole)

local is_whole = args[7]
local found, before, looked = select_jobs(args[4], args[5], args[6])
local jobs, names_of = {}, {}
if #found > 0 then
  local texts, sheets, notes = {}, {}, {}
  for first = 1, #found, 1000 do
    local last = min(#found, first + 999)
    local some_texts = call('HMGET', P .. 'rows', unpack(found, first, last))
    local some_sheets = call('HMGET', P .. 'bodies', unpack(found, first, last))
    local some_notes = call('HMGET', P .. 'progress', unpack(found, first, last))
    for i = 1, last - first + 1 do
      local at = first + i - 1
      texts[at], sheets[at], notes[at] = some_texts[i], some_sheets[i], some_notes[i]
    end
  end
  local seen = {}
  for i = 1, #found do
    local id = found[i]
    local queue = rows[id][QUEUE]
    if not seen[queue] then
      seen[queue] = true
      names_of[#names_of + 1], names_of[#names_of + 2] = queue, queue_name(queue)
    end
    local at = #jobs
    jobs[at + 1], jobs[at + 2], jobs[at + 4] = id, texts[i], notes[i]
    if is_whole then
      jobs[at + 3] = sheets[i]
      jobs[at + 5] = call('HGET', P .. 'results', id)
      jobs[at + 6] = call('HGET', P .. 'errors', id)
    else
      jobs[at + 3] = lean(sheets[i])
      jobs[at + 5], jobs[at + 6] = false, false
    end
  end
end
return { wall, before, looked, names_of, jobs }
