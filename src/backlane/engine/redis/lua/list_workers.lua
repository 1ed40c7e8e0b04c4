-- list_workers: [] -> wall, boot, [kept | nil, beat, ..] of at most 1,000

local owners, told = call('ZRANGE', P .. 'beats', 0, 999, 'WITHSCORES'), {}
local found = {}
for i = 1, #owners, 2 do found[#found + 1] = owners[i] end
if #found > 0 then
  local kept = call('HMGET', P .. 'workers', unpack(found))
  for i = 1, #found do
    told[2 * i - 1], told[2 * i] = kept[i], tonumber(owners[2 * i])
  end
end
return { wall, boot, told }
