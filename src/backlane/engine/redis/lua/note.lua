-- note: args: [[id, token, progress], ..] -> wall, [id lost, ..]

local notes = args[3]
local ids, lost = {}, {}
make_way() -- one progress a running job
for i = 1, #notes do ids[i] = notes[i][1] end
read_rows(ids)
for i = 1, #notes do
  local id, row = ids[i], rows[ids[i]]
  if row and row[STATE] == RUNNING and row[TOKEN] == notes[i][2] then
    push(hsets, 'progress', id, notes[i][3])
    change(id, row)
  else
    lost[#lost + 1] = id
  end
end
flush()
ring()
return { wall, lost }
