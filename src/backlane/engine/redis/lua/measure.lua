-- measure: [names, random bytes] -> wall, boot, secret, [presence, ..] as `announce` keeps them,
--   [[what `tell` tells, withheld], ..]

local down, told = down_resources(), {}
local asked = args[3]
for i = 1, #asked do
  local queue = queue_number(asked[i])
  if queue then told[#told + 1] = { tell(queue, down), withheld(queue, down) } end
end
local owners, beats = call('ZRANGE', P .. 'beats', 0, 999, 'WITHSCORES'), {}
local found = {}
for i = 1, #owners, 2 do found[#found + 1] = owners[i] end
if #asked > 0 and #found > 0 then
  local kept = call('HMGET', P .. 'workers', unpack(found))
  for i = 1, #found do
    beats[2 * i - 1], beats[2 * i] = kept[i], tonumber(owners[2 * i])
  end
end
local secret = call('HGET', P .. 'meta', 'secret')
if not secret then -- whoever asks first makes it
  make_way()
  secret = args[4]
  call('HSET', P .. 'meta', 'secret', secret)
end
return { wall, boot, secret, beats, told }
