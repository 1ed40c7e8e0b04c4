-- recall: [job] -> wall, [name, result, ..] in the order of their first note
--   steps  hash id -> packed [[name, result], ..]

local kept = call('HGET', P .. 'steps', args[3])
local told = {}
for _, step in ipairs(kept and cmsgpack.unpack(kept) or {}) do
  told[#told + 1], told[#told + 2] = step[1], step[2]
end
return { wall, told }
