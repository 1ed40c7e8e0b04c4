-- reserve: [queue, after ms, spacing us, number] -> wall, when the first slot begins in ms

local FURTHEST = 600000000 -- us: a clock further ahead was read before someone set it back
local after = max(0, args[4])
local queue = queue_number(args[3])
if not queue then return { wall, after } end
local now = wall * 1000
local stood = tonumber(call('HGET', P .. 'q:' .. queue, 'clock_us') or 0)
local ahead = stood - now
if ahead <= 0 or ahead > FURTHEST then ahead = 0 end
local begins = max(ahead, after * 1000)
local moved = min(begins + args[6] * args[5], FURTHEST)
call('HSET', P .. 'q:' .. queue, 'clock_us', string.format('%.0f', now + moved))
return { wall, floor(begins / 1000) }
