-- dump: [first sequence, limit, most rows, bytes, states as a set] ->
--   wall, next sequence | nil, rows looked at, bytes, [number, name of a queue, ..],
--   [id, row, sheet, progress, result, errors, steps [name, result, ..] | nil, open edges as in a
--   sheet, ids it waited for, ..] in the order of their append
-- Beside the states asked for also what has ended and an unfinished job wants to read; but not
-- yet who waits for a job that runs.

local begins, limit, most, room, wanted = args[3], args[4], args[5], args[6], args[7]
local jobs, names_of, seen, held, looked, number = {}, {}, {}, 0, 0, 0
local ZEROS = string.rep('\0', 16)

local function steps_of(id)
  local kept = call('HGET', P .. 'steps', id)
  if not kept then return false end
  local told = {}
  for _, step in ipairs(cmsgpack.unpack(kept)) do
    told[#told + 1], told[#told + 2] = step[1], step[2]
    held = held + #step[2]
  end
  return told
end

local function tell(id, text)
  local row = cmsgpack.unpack(text)
  rows[id] = row
  if not wanted[row[STATE]] then
    if row[STATE] <= RUNNING or not edging().needed({ id })[id] then return end
  end
  local open, waited = '', ''
  if row[STATE] <= RUNNING and row[EXTRA] and row[EXTRA][E_GENERATION] > 0 then
    open, waited = edging().tell(id, row)
    if edging().are_some_running(open) then return end
  end
  local at = #jobs
  jobs[at + 1], jobs[at + 2] = id, text
  jobs[at + 3] = call('HGET', P .. 'bodies', id)
  jobs[at + 4] = call('HGET', P .. 'progress', id)
  jobs[at + 5] = call('HGET', P .. 'results', id)
  jobs[at + 6] = call('HGET', P .. 'errors', id)
  jobs[at + 7] = steps_of(id)
  jobs[at + 8], jobs[at + 9] = open, waited
  held = held + row[SIZE] + (jobs[at + 5] and #jobs[at + 5] or 0)
  number = number + 1
  if not seen[row[QUEUE]] then
    seen[row[QUEUE]] = true
    names_of[#names_of + 1], names_of[#names_of + 2] = row[QUEUE], queue_name(row[QUEUE])
  end
end

local function go_through()
  local blocks = call('HKEYS', P .. 'orders')
  for i = 1, #blocks do blocks[i] = tonumber(blocks[i]) end
  table.sort(blocks)
  for i = 1, #blocks do
    local first = blocks[i] * BLOCK
    if first + BLOCK > begins then
      local ids = call('GET', P .. 'order:' .. blocks[i]) or ''
      for at = max(0, begins - first), #ids / 16 - 1 do
        local id = string.sub(ids, at * 16 + 1, at * 16 + 16)
        if id ~= ZEROS then
          if number >= limit or looked >= most or held >= room then return first + at end
          local text = call('HGET', P .. 'rows', id)
          if text then tell(id, text) end
          looked = looked + 1
        end
      end
    end
  end
  return false
end

local next_seq = go_through()
return { wall, next_seq, looked, held, names_of, jobs }
