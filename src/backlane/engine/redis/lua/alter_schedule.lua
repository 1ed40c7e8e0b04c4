-- alter_schedule: [name, "put" | "pause" | "resume" | "remove", spec, task, is_declared] ->
--   wall, [schedule]

local name, change = args[3], args[4]
local it = read_schedule(name)

-- Begins now, whatever was there before.
local function begin(spec, task, is_declared)
  it = {
    spec, task, is_declared, it and it[PAUSED_NOW] or false, it and it[REVISED] + 1 or 1, wall,
    false, it and it[LAST_JOB] or false, wall,
  }
  keep_schedule(name, it)
end

local changes = {
  put = function()
    local spec, task, is_declared = args[5], args[6], args[7]
    if it and is_declared and not it[DECLARED] then return end
    if it and it[SPEC] == spec and it[OF_TASK] == task then
      it[SEEN] = wall
      if it[DECLARED] ~= is_declared then
        it[DECLARED], it[REVISED] = is_declared, it[REVISED] + 1
      end
      return keep_schedule(name, it)
    end
    begin(spec, task, is_declared)
  end,
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
