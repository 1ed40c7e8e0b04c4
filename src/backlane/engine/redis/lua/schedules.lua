-- Schedules: how they are kept, for all verbs of theirs.
--   schedules  hash name -> packed [spec, task, is_declared, is_paused, revision, last ms,
--              next ms | false, id of the last job | false, boot ms when code last declared it]
--   declared   names of those that code declared; score boot ms of when it last did
--   timetable  names, but of those paused; score next ms, 0: to be looked at at once
-- What is answered of one: name, spec, task, is_declared, is_paused, revision, last ms,
-- next ms | nil, last job | nil

local SPEC, OF_TASK, DECLARED, PAUSED_NOW, REVISED = 1, 2, 3, 4, 5
local LAST_MS, NEXT_MS, LAST_JOB, SEEN = 6, 7, 8, 9

local function read_schedule(name)
  local text = call('HGET', P .. 'schedules', name)
  return text and cmsgpack.unpack(text)
end

local function keep_schedule(name, it)
  call('HSET', P .. 'schedules', name, cmsgpack.pack(it))
  if it[PAUSED_NOW] then
    call('ZREM', P .. 'timetable', name)
  else
    call('ZADD', P .. 'timetable', it[NEXT_MS] or 0, name)
  end
  if it[DECLARED] then
    call('ZADD', P .. 'declared', it[SEEN], name)
  else
    call('ZREM', P .. 'declared', name)
  end
end

local function drop_schedule(name)
  call('HDEL', P .. 'schedules', name)
  call('ZREM', P .. 'timetable', name)
  call('ZREM', P .. 'declared', name)
end

local function tell_schedule(told, name, it)
  local at = #told
  told[at + 1], told[at + 2], told[at + 3] = name, it[SPEC], it[OF_TASK]
  told[at + 4], told[at + 5] = it[DECLARED] and 1 or 0, it[PAUSED_NOW] and 1 or 0
  told[at + 6], told[at + 7] = it[REVISED], it[LAST_MS]
  told[at + 8], told[at + 9] = it[NEXT_MS], it[LAST_JOB]
end
