-- tick: as admission.lua, and: [name, revision, last ms, next ms | false] ->
--   as append; or wall, 2 where another was first

local name, revision, last_ms, next_ms = unpack(args[8])
local it = read_schedule(name)
if not it or it[REVISED] ~= revision then return { wall, 2 } end
local told = append()
if told[2] ~= 1 then return told end
if not next_ms then
  drop_schedule(name)
else
  local n = #jobs
  if n > 0 then it[LAST_JOB] = told[3][n] or jobs[n][ID] end
  it[REVISED], it[LAST_MS], it[NEXT_MS] = it[REVISED] + 1, last_ms, next_ms
  keep_schedule(name, it)
end
return told
