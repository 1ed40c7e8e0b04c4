-- list_queues: [] -> wall, [what `tell` tells, of each]

local down, told = down_resources(), {}
local known = call('HVALS', P .. 'queues')
for i = 1, #known do told[i] = tell(tonumber(known[i]), down) end
return { wall, told }
