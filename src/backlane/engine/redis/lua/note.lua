-- note: args: [[id, token, progress | false, [name, result, ..] | false], ..] ->
--   wall, [id lost, ..]

local notes = args[3]
local ids, lost, has_steps = {}, {}, false
for i = 1, #notes do
  ids[i] = notes[i][1]
  has_steps = has_steps or notes[i][4]
end
if not has_steps then make_way() end -- one progress a running job; steps may be any number
read_rows(ids)

local function keep_steps(id, added)
  local text = call('HGET', P .. 'steps', id)
  local kept, known = text and cmsgpack.unpack(text) or {}, {}
  for i = 1, #kept do known[kept[i][1]] = kept[i] end
  for i = 1, #added, 2 do
    local step = known[added[i]]
    if step then
      step[2] = added[i + 1]
    else
      step = { added[i], added[i + 1] }
      known[added[i]], kept[#kept + 1] = step, step
    end
  end
  call('HSET', P .. 'steps', id, cmsgpack.pack(kept))
end

for i = 1, #notes do
  local id, row = ids[i], rows[ids[i]]
  if row and row[STATE] == RUNNING and row[TOKEN] == notes[i][2] then
    if notes[i][3] then push(hsets, 'progress', id, notes[i][3]) end
    if notes[i][4] then keep_steps(id, notes[i][4]) end
    change(id, row)
  else
    lost[#lost + 1] = id
  end
end
flush()
ring()
return { wall, lost }
