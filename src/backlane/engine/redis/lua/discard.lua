-- discard: [[id, revision], ..] -> wall, [id, ..] of those that were not forgotten

local asked, left = args[3], {}
local is_sealed = call('HEXISTS', P .. 'meta', 'seal') == 1
local ids = {}
make_way()
for i = 1, #asked do ids[i] = asked[i][1] end
read_rows(ids)
for i = 1, #asked do
  local row = rows[ids[i]]
  if not is_sealed or not row or row[STATE] == RUNNING or row[REVISION] ~= asked[i][2] then
    left[#left + 1] = ids[i]
  else
    forget(ids[i], row)
  end
end
flush()
ring()
return { wall, left }
