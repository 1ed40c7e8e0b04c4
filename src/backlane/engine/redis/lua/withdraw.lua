-- withdraw: args: [id, ..] -> wall

local ids = args[3]
read_rows(ids)
for i = 1, #ids do
  local row = rows[ids[i]]
  if row then
    push(zrems, label(label('offered:', row[QUEUE]) .. ':', row[LANE]), member(ids[i], row))
  end
end
flush()
return { wall }
