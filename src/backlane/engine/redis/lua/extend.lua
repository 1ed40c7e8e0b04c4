-- extend: args: by ms, [[id, token], ..] -> wall, [id lost, ..], [id to stop, ..]

make_way() -- a lease must be kept whatever happens
local by, leases = args[3], args[4]
local ids, lost, cancelled = {}, {}, {}
for i = 1, #leases do ids[i] = leases[i][1] end
read_rows(ids)
for i = 1, #leases do
  local id, row = ids[i], rows[ids[i]]
  if row and row[STATE] == RUNNING and row[TOKEN] == leases[i][2] and row[LEASE_END] > boot then
    row.is_extended = true
  else
    lost[#lost + 1] = id
  end
end
for i = 1, #leases do
  local id, row = ids[i], rows[ids[i]]
  if row and row.is_extended then
    row.is_extended = nil
    row[LEASE_END] = boot + by
    push(zadds, 'leases', row[LEASE_END], member(id, row))
    changed[id] = true
    if row[CANCELLING] then cancelled[#cancelled + 1] = id end
  end
end
flush()
return { wall, lost, cancelled }
