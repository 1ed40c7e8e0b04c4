-- departed: [] -> wall, [owner, ..] of those that said farewell and still hold leases
-- Looks at the leases only if somebody did, and at 10,000 of them, as a claim does: what nobody
-- extends comes to the front. Who holds none is forgotten.

local gone = call('ZRANGE', P .. 'gone', 0, 99)
if #gone == 0 then return { wall, {} } end
local holds, found = {}, {}
local members = call('ZRANGE', P .. 'leases', 0, 9999)
local ids = {}
for i = 1, #members do ids[i] = id_of(members[i]) end
read_rows(ids)
for i = 1, #ids do
  local row = rows[ids[i]]
  if row and row[OWNER] then holds[row[OWNER]] = true end
end
for i = 1, #gone do
  if holds[gone[i]] then
    found[#found + 1] = gone[i]
  elseif #members < 10000 then
    call('ZREM', P .. 'gone', gone[i])
  end
end
return { wall, found }
