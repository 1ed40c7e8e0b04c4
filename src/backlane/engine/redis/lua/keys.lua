-- Keys: which job holds one, and for how long: see `keys` in model.lua.

local key_works
local function keying()
  if key_works then return key_works end
  local it = {}
  key_works = it

  -- Until when the window of a job's key lasts; nil: it has none.
  function it.ends(row)
    local rule = row[EXTRA] and row[EXTRA][E_RULE]
    return type(rule) == 'number' and rule or nil
  end

  -- Whether a job as it is would hold its key, if nobody else did.
  function it.would_hold(row)
    local rule, state = row[EXTRA] and row[EXTRA][E_RULE], row[STATE]
    if type(rule) == 'number' then return rule > wall end
    if rule == 's' then return row[TOKEN] == 0 and state <= RUNNING end
    return state <= RUNNING or rule == 'k' and state == FAILED
  end

  -- Who holds a key now, by what `keys` says of it; or nil.
  function it.holder(held)
    if held and (#held == 16 or struct.unpack('>I6', held, 17) > wall) then
      return string.sub(held, 1, 16)
    end
  end

  function it.take(id, row)
    local ends = it.ends(row)
    push(hsets, 'keys', row[KEY], ends and id .. struct.pack('>I6', ends) or id)
    if ends then push(zadds, 'keys_until', ends, row[KEY]) end
  end

  -- Frees the key of a job, unless another holds it.
  function it.free(id, row)
    local held = call('HGET', P .. 'keys', row[KEY])
    if held and string.sub(held, 1, 16) == id then
      push(hdels, 'keys', row[KEY])
      if #held > 16 then push(zrems, 'keys_until', row[KEY]) end
    end
  end

  -- Frees the key of a job that holds it no longer, as it is by now.
  function it.let_go(id, row)
    if not it.ends(row) and not it.would_hold(row) then it.free(id, row) end
  end

  -- What follows the scope in a field: "4:mailwelcome" is scope "mail", name "welcome".
  function it.name(row)
    local length, rest = string.match(row[KEY], '^(%d+):(.*)$')
    return string.sub(rest, length + 1)
  end

  return it
end
