-- Waking: what a claim does about limits, before it takes jobs and while it does.

local MOVES = 1000 -- jobs that a claim wakes at most, and as many that it finds without room
local woken, stopped = 0, 0 -- by this claim

local waking_works
local function waking()
  if waking_works then return waking_works end
  local it = {}
  waking_works = it

  local function own_gate(queue)
    return gating().gate_of('lqueue:' .. queue_name(queue) .. '\0')
  end

  -- What the own limit of a queue leaves: `left` of its line.
  function it.read_left(queue, it)
    local running = tonumber(call('HGET', P .. 'q:' .. queue, 's4') or 0)
    it.left = gating().room(own_gate(queue), running)
  end

  -- What a lease takes beside the usual.
  function it.lease_extra(id, row)
    local x, it = extra(row), line(row[QUEUE])
    if x[E_USES] then gating().lease_uses(row) end
    if x[E_VIRTUAL] then
      fairness().count_ageing(id, row, -1)
      if it.is_fair then fairness().take(row) end
    end
    if x[E_RULE] == 's' and row[KEY] then keying().free(id, row) end
    if it.is_limited then
      gating().spend(own_gate(row[QUEUE]))
      if it.left then it.left = it.left - 1 end
    end
  end

  -- Lets a ready job that was taken out of its set wait, if a use of it has no room.
  function it.stop(id, row)
    local on = row[STATE] == READY and gating().first_shut(row) or 0
    if on == 0 then return false end
    count(id, row, -1, true)
    row[STATE], row[EXTRA][E_ON] = BLOCKED, on
    count(id, row, 1)
    entered(id, row)
    return true
  end

  -- Of what is looked at latest: after the clock was set back, or its rate was raised, it is time
  -- to look sooner. (Where a slower one hides it, a sweep sees it.)
  local function look_sooner(queue)
    for _ = 1, MOVES do
      local last = call('ZREVRANGE', P .. 'open:' .. queue, 0, 0, 'WITHSCORES')
      if not last[1] or tonumber(last[2]) <= wall then return end
      local at = gating().next_look(gating().gate_of(last[1])) or wall
      if at >= tonumber(last[2]) then return end
      call('ZADD', P .. 'open:' .. queue, at, last[1])
    end
  end

  -- The uses that may have room for jobs of these queues, in order: by limit, part and turn.
  local function open_uses(queues)
    local uses, seen = {}, {}
    for i = 1, #queues do
      look_sooner(queues[i])
      local open = call('ZRANGEBYSCORE', P .. 'open:' .. queues[i], '-inf', wall, 'LIMIT', 0, MOVES)
      for j = 1, #open do
        if not seen[open[j]] then
          seen[open[j]] = true
          uses[#uses + 1] = open[j]
        end
      end
    end
    table.sort(uses, function(a, b)
      local of_a, of_b = string.sub(a, 2), string.sub(b, 2)
      if of_a ~= of_b then return of_a < of_b end
      return a < b
    end)
    return uses
  end

  -- The next ids that are blocked on a gate in these queues, at most `number`.
  local function next_blocked(gate, queues, number)
    local all, ids = {}, {}
    for i = 1, #queues do
      if (gate.blocked[queues[i]] or 0) > 0 then
        local key = gating().blocked_key(gate, queues[i])
        local got = call('ZRANGE', P .. key, 0, number - 1, 'WITHSCORES')
        for j = 1, #got, 2 do all[#all + 1] = { got[j], tonumber(got[j + 1]), key } end
      end
    end
    table.sort(all, function(a, b)
      if a[2] ~= b[2] then return a[2] < b[2] end
      return a[1] < b[1]
    end)
    for i = 1, min(#all, number) do ids[i] = id_of(all[i][1]) end
    read_rows(ids)
    for i = 1, #ids do -- what does not wait any more, after somebody edited keys
      local row = rows[ids[i]]
      if not row or row[STATE] ~= BLOCKED then push(zrems, all[i][3], all[i][1]) end
    end
    return ids
  end

  local function wake_gate(gate, queues)
    local ready = 0
    for i = 1, #queues do ready = ready + (gate.ready[queues[i]] or 0) end
    local left = min(MOVES, gating().room(gate) - ready)
    while left > 0 and woken < MOVES do
      local ids = next_blocked(gate, queues, min(left, MOVES - woken))
      for i = 1, #ids do
        local row = rows[ids[i]]
        if row and row[STATE] == BLOCKED then
          get_in_line(ids[i], row, true, row[EXTRA][E_ON])
          -- A turn is had, come what may.
          if row[STATE] == READY or gate.is_turn then left = left - 1 end
        end
        woken = woken + 1
      end
      flush()
      if #ids == 0 then break end
    end
    gating().post_again(gate, queues)
  end

  -- Makes blocked jobs of these queues ready, as many as there is room for.
  function it.wake(queues)
    local waited = {}
    for i = 1, #queues do
      if line(queues[i]).blocked > 0 then waited[#waited + 1] = queues[i] end
    end
    if #waited == 0 then return end
    make_way()
    gating() -- what was acquired and has ended leaves room
    flush()
    local uses = open_uses(waited)
    for i = 1, #uses do
      if woken >= MOVES then return end
      wake_gate(gating().gate_of(uses[i]), queues)
    end
  end

  -- Until what waits for a token of a rate may have it; nil: nothing does.
  function it.next_token(queues)
    local soonest
    local function look(gate)
      local wait = gating().token_in_ms(gate)
      if wait > 0 then soonest = min(soonest or wait, wait) end
      return wait > 0
    end
    for i = 1, #queues do
      local it = line(queues[i])
      if it.blocked > 0 or stopped > 0 then
        local open = call('ZRANGE', P .. 'open:' .. queues[i], 0, 99, 'WITHSCORES')
        for j = 1, #open, 2 do -- what was to be open by now is in no order of its tokens
          if look(gating().gate_of(open[j])) and tonumber(open[j + 1]) > wall then break end
        end
      end
      if it.is_limited then -- jobs that are woken then wait for it too
        local ready = tonumber(call('HGET', P .. 'q:' .. queues[i], 's2') or 0)
        if ready + it.blocked > 0 then look(own_gate(queues[i])) end
      end
    end
    return soonest
  end

  return it
end
