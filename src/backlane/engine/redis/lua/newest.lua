-- Newest: the results that are to be at hand: see `latest` in model.lua.

local newest_works
local function newest()
  if newest_works then return newest_works end
  local it = {}
  newest_works = it

  -- Whether an id is later than another: by bytes, for Lua compares text as the locale does.
  local function is_later(id, other)
    for at = 1, 13, 4 do
      local ours, theirs = struct.unpack('>I4', id, at), struct.unpack('>I4', other, at)
      if ours ~= theirs then return ours > theirs end
    end
    return false
  end

  -- Keeps the result of a task that is to be at hand, unless there is one of a later id.
  function it.keep(task, id, result, ended)
    local known = call('HGET', P .. 'latest', task)
    if known and is_later(known, id) then return end
    call('HSET', P .. 'latest', task, id .. struct.pack('>I6', ended or wall) .. result)
  end

  return it
end
