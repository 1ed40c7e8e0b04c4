-- alter_schedule: [name, "put" | "pause" | "resume" | "remove", spec, task, is_declared] ->
--   wall, [schedule]

local name, change = args[3], args[4]
local it = read_schedule(name)

local function put(spec, task, is_declared)
  if not it then
    it = { spec, task, is_declared, false, wall, wall, false, false, boot }
    return keep_schedule(name, it)
  end
  if is_declared then it[SEEN] = boot end
  if not is_declared or it[DECLARED] then
    local is_other = it[SPEC] ~= spec or it[OF_TASK] ~= task
    if is_other then
      it[SPEC], it[OF_TASK], it[LAST_MS], it[NEXT_MS] = spec, task, wall, false
    end
    if is_other or it[DECLARED] ~= is_declared then it[REVISED] = it[REVISED] + 1 end
    it[DECLARED] = is_declared
  end
  keep_schedule(name, it)
end

local changes = {
  put = function() put(args[5], args[6], args[7]) end,
  pause = function()
    if it and not it[PAUSED_NOW] then
      it[PAUSED_NOW], it[REVISED] = true, it[REVISED] + 1
      keep_schedule(name, it)
    end
  end,
  resume = function()
    if it and it[PAUSED_NOW] then
      it[PAUSED_NOW], it[REVISED], it[LAST_MS], it[NEXT_MS] = false, it[REVISED] + 1, wall, false
      keep_schedule(name, it)
    end
  end,
  remove = function()
    if it then drop_schedule(name) end
    it = nil
  end,
}

if change == 'remove' then make_way() end
changes[change]()
local told = {}
if it then tell_schedule(told, name, it) end
return { wall, told }
