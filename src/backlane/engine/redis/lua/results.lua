-- results: [jobs] -> wall, [id, final state | 0, result | nil, ..] of those that are known

local jobs, told = args[3], {}
for first = 1, #jobs, 1000 do
  local last = min(#jobs, first + 999)
  local texts = call('HMGET', P .. 'rows', unpack(jobs, first, last))
  local kept = call('HMGET', P .. 'results', unpack(jobs, first, last))
  for i = 1, last - first + 1 do
    if texts[i] then
      local state = cmsgpack.unpack(texts[i])[STATE]
      local at = #told
      told[at + 1] = jobs[first + i - 1]
      told[at + 2] = state >= SUCCEEDED and state or 0
      told[at + 3] = kept[i]
    end
  end
end
return { wall, told }
