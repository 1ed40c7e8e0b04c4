-- restore_schedules: [[name, spec, task, is_declared, is_paused, revision, last ms, next ms | false,
--   last job | false], ..] -> wall

for _, given in ipairs(args[3]) do
  local it = {}
  for i = 2, 9 do it[i - 1] = given[i] end
  it[SEEN] = boot
  keep_schedule(given[1], it)
end
return { wall }
