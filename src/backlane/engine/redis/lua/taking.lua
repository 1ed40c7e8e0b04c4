-- Taking: what claim and turn do to give leases; behind `rooms.lua` and `waking.lua`.

local taken = {} -- ids that were leased: for `ring`

-- -- bringing in what lapsed and what is due --

local function lapsed_members(departed)
  local found = call('ZRANGEBYSCORE', P .. 'leases', '-inf', boot, 'LIMIT', 0, MOVES)
  if #departed == 0 then return found end
  local gone, has = {}, {}
  for i = 1, #departed do gone[departed[i]] = true end
  for i = 1, #found do has[found[i]] = true end
  -- Running jobs are no more than there are slots: reading all is rare, and short.
  local all = call('ZRANGE', P .. 'leases', 0, 9999)
  local ids = {}
  for i = 1, #all do ids[i] = id_of(all[i]) end
  read_rows(ids)
  local both = {}
  for i = 1, #all do
    local row = rows[ids[i]]
    if (has[all[i]] or row and gone[row[OWNER]]) and #both < MOVES then both[#both + 1] = all[i] end
  end
  return both
end

-- Returns the buried: [id, row, queue, sheet] of each.
local function bring_in(departed)
  local lapsed = lapsed_members(departed)
  local due = call('ZRANGEBYSCORE', P .. 'scheduled', '-inf', wall, 'LIMIT', 0, MOVES - #lapsed)
  local buried, ids = {}, {}
  if #lapsed + #due == 0 then return buried end
  make_way()
  for i = 1, #lapsed do ids[i] = id_of(lapsed[i]) end
  for i = 1, #due do ids[#lapsed + i] = id_of(due[i]) end
  read_rows(ids)
  for i = 1, #lapsed do
    local id, row = ids[i], rows[ids[i]]
    if row then
      lapse(id, row)
      if row[STATE] == FAILED then
        buried[#buried + 1] = { id, cmsgpack.pack(row), queue_name(row[QUEUE]),
          call('HGET', P .. 'bodies', id) }
      end
    else
      push(zrems, 'leases', lapsed[i])
    end
  end
  follow() -- who waited for them is in line before what is due: a fair queue is not idle then
  for i = 1, #due do
    local id, row = ids[#lapsed + i], rows[ids[#lapsed + i]]
    if row then
      put_back(id, row)
    else
      push(zrems, 'scheduled', due[i])
    end
  end
  follow()
  flush()
  return buried
end

-- -- who is next --

-- The numbers of the queues that a claim wants and that may give; and of those among them whose
-- own limit has room.
local function giving(names, ids, kind)
  local found, seen, asked, wanted = {}, {}, {}, {}
  for i = 1, #names do asked[i] = queue_number(names[i]) or 0 end
  read_rows(ids)
  for i = 1, #ids do asked[#asked + 1] = rows[ids[i]] and rows[ids[i]][QUEUE] or 0 end
  for i = 1, #asked do
    local queue = asked[i]
    if queue > 0 and not seen[queue] then
      seen[queue] = true
      local it = line(queue)
      if it.kind == kind and not it.paused then
        if it.is_limited then waking().read_left(queue, it) end
        wanted[#wanted + 1] = queue
        if it.left ~= 0 then found[#found + 1] = queue end
      end
    end
  end
  return wanted, found
end

-- The ready sets of these queues and this lane (false: both): {key, resource, queue}.
local function sources_of(queues, lane)
  local found = {}
  for i = 1, #queues do
    local queue = queues[i]
    for its_lane = lane or 0, lane or 1 do
      local key = P .. 'ready:' .. queue .. ':' .. its_lane
      found[#found + 1] = { key = key, queue = queue }
      local res = line(queue).res or {}
      for j = 1, #res do
        found[#found + 1] = { key = key .. ':' .. res[j], resource = res[j], queue = queue }
      end
    end
  end
  return found
end

-- The next members of some sets, merged: {member, score, key, resource, queue}. Of each set at
-- most `number`, and no more than one beyond what may come of it.
local function merged(sources, number)
  local all = {}
  for i = 1, #sources do
    local source = sources[i]
    local most = number
    if source.resource and rooms[source.resource] then
      most = min(most, rooms[source.resource].left)
    end
    most = min(most, line(source.queue).left or most)
    if most > 0 then most = min(number, most + 1) end
    local got = most > 0 and call('ZRANGE', source.key, 0, most - 1, 'WITHSCORES') or {}
    for j = 1, #got, 2 do all[#all + 1] = { got[j], tonumber(got[j + 1]), source.key, source.resource, source.queue } end
  end
  table.sort(all, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    return a[1] < b[1]
  end)
  return all
end

-- Counts a job into what the own limit of its queue leaves, while choosing.
local function fits_queue(taken_of, queue)
  local left = line(queue).left
  if not left then return true end
  taken_of[queue] = (taken_of[queue] or 0) + 1
  return taken_of[queue] <= left
end

-- Takes the next members out of their sets; returns their ids, and whether there may be more.
local function take_next(sources, number)
  local ids = {}
  if #sources == 1 and not (sources[1].resource and rooms[sources[1].resource]) then
    number = min(number, line(sources[1].queue).left or number)
    if number <= 0 then return ids, false end
    local got = call('ZPOPMIN', sources[1].key, number)
    for i = 1, #got, 2 do
      local id = id_of(got[i])
      ids[#ids + 1], members[id] = id, got[i]
    end
    return ids, #ids == number
  end
  local all, by_key, room, taken_of = merged(sources, number), {}, {}, {}
  for i = 1, #all do
    local it = all[i]
    -- What does not fit would, should one before it have expired or have to wait: so nothing
    -- behind it may go first.
    if #ids == number or not (fits(room, it[4]) and fits_queue(taken_of, it[5])) then break end
    ids[#ids + 1] = id_of(it[1])
    push(by_key, it[3], it[1])
  end
  for key, list in pairs(by_key) do send('ZREM', key, list) end
  return ids, #ids == number
end

-- Takes these very jobs where they may be claimed, in their order: by score, then sequence.
-- Numbers are put in order without a function of Lua's, which took as long as all the rest.
local function take_these(wanted, lane, kind, number)
  read_rows(wanted)
  local ids_of, scores, seqs_of = {}, {}, {} -- by sequence; all; by score
  for i = 1, #wanted do
    local id, row = wanted[i], rows[wanted[i]]
    if row and row[STATE] == READY and (not lane or row[LANE] == lane) and not ids_of[row[SEQ]] then
      local it, its_room = line(row[QUEUE]), row[RESOURCE] and rooms[row[RESOURCE]]
      local is_full = it.left == 0 or its_room and its_room.left <= 0
      if it.kind == kind and not it.paused and not is_full then
        local score, seq = score_of(row), row[SEQ]
        ids_of[seq] = id
        local of_score = seqs_of[score]
        if of_score then
          of_score[#of_score + 1] = seq
        else
          scores[#scores + 1], seqs_of[score] = score, { seq }
        end
      end
    end
  end
  table.sort(scores)
  local ids, by_key, room, taken_of = {}, {}, {}, {}
  local is_cut = false -- as in `take_next`
  for i = 1, #scores do
    local seqs = seqs_of[scores[i]]
    table.sort(seqs)
    for j = 1, #seqs do
      local id = ids_of[seqs[j]]
      local row = rows[id]
      is_cut = is_cut or #ids == number
        or not (fits(room, row[RESOURCE]) and fits_queue(taken_of, row[QUEUE]))
      if is_cut then break end
      push(by_key, P .. ready_key(row), member(id, row))
      ids[#ids + 1] = id
    end
    if is_cut then break end
  end
  for key, list in pairs(by_key) do send('ZREM', key, list) end
  return ids
end

-- -- leases --

-- The same as leaving READY and entering RUNNING by `count` would be, with half of the steps.
local function lease(id, row, owner, lease_ms)
  local queue, priority = label('q:', row[QUEUE]), row[PRIORITY]
  local token = row[TOKEN] + 1
  if token > 1 then push(hdels, 'progress', id) end
  row[STATE], row[TOKEN], row[OWNER], row[STARTED] = RUNNING, token, owner, wall
  row[LEASE_END], row[CANCELLING] = boot + lease_ms, false
  row[ENDED], row[RAN], row[REASON] = row[ENDED] or false, row[RAN] or 0, row[REASON] or false
  row[REVISION] = row[REVISION] + 1
  if row[EXTRA] or lines[row[QUEUE]].is_limited then waking().lease_extra(id, row) end
  push(zadds, 'leases', row[LEASE_END], member(id, row))
  if row[DEADLINE] then push(zrems, 'deadlines', member(id, row)) end
  add(queue, -1, 's2')
  add(queue, 1, 's4')
  add(queue, -1, label('r', priority))
  add(queue, 1, label('u', priority))
  add(queue, 1, label('b', priority))
  if token == 1 and row[PREDICTED] then
    add(queue, 1, 'foretold')
    add(queue, row[PREDICTED], 'foretold_ms')
    add(queue, max(0, wall - row[PLACE]), 'waited_ms')
  end
  rung_jobs[id], taken[id] = true, true
  local text = cmsgpack.pack(row)
  push(hsets, 'rows', id, text)
  return text
end

-- The sheets of these jobs, by id.
local function read_sheets(ids)
  local found, n = {}, #ids
  for first = 1, n, 1000 do
    local last = min(n, first + 999)
    local got = call('HMGET', P .. 'bodies', unpack(ids, first, last))
    for i = first, last do found[ids[i]] = got[i - first + 1] end
  end
  return found
end

-- Leases what was taken out of its set, and ends what is past its deadline.
local function lease_all(ids, owner, lease_ms, leases)
  read_rows(ids)
  local given, texts = {}, {}
  for i = 1, #ids do
    local id = ids[i]
    local row = rows[id]
    if row and row[DEADLINE] and row[DEADLINE] <= wall then
      finish(id, row, EXPIRED, false, false, true)
    elseif row and row[EXTRA] and row[EXTRA][E_USES] and waking().stop(id, row) then
      stopped = stopped + 1
    elseif row and row[STATE] == READY then -- never two leases, whatever the sets say
      give(row[RESOURCE], id)
      given[#given + 1] = id
      texts[#given] = lease(id, row, owner, lease_ms)
    end
  end
  local sheets = read_sheets(given)
  for i = 1, #given do
    leases[#leases + 1] = { given[i], texts[i], sheets[given[i]] }
  end
end

local function cancelled_of(owner)
  local found = {}
  if call('EXISTS', P .. 'flagged') == 0 then return found end
  local all = call('HGETALL', P .. 'flagged')
  for i = 1, #all, 2 do
    if all[i + 1] == owner then found[#found + 1] = all[i] end
  end
  return found
end

-- Makes blocked jobs of these queues ready, as many as there is room for.
local function wake(queues)
  for i = 1, #queues do
    if line(queues[i]).blocked > 0 then
      waking().wake(queues)
      return
    end
  end
end

local function next_due(queues)
  if woken >= MOVES or stopped >= MOVES then return 0 end
  local soonest = next_trial()
  local first = call('ZRANGE', P .. 'scheduled', 0, 0, 'WITHSCORES')[2]
  if first then soonest = min(soonest or math.huge, first - wall) end
  first = call('ZRANGE', P .. 'leases', 0, 0, 'WITHSCORES')[2]
  if first then soonest = min(soonest or math.huge, first - boot) end
  for i = 1, #queues do
    local it = line(queues[i])
    if it.blocked > 0 or it.is_limited or stopped > 0 then
      first = waking().next_token(queues)
      if first then soonest = min(soonest or math.huge, first) end
      break
    end
  end
  return soonest and max(0, soonest) or false
end

-- One claim: [owner, number, lease ms, queues, lane | nil, ids, kind, departed] ->
-- [[[id, row, sheet], ..], cancelled, next due | false, buried, turned, [number of a queue, its name, ..]]
local function claim(wanted)
  local owner, number, lease_ms, names_of = wanted[1], wanted[2], wanted[3], wanted[4]
  local lane, ids, kind = wanted[5], wanted[6], wanted[7]
  local buried = bring_in(wanted[8])
  read_rooms()
  local leases, wanted_queues, queues = {}, {}, {}
  woken, stopped = 0, 0
  if call('HEXISTS', P .. 'meta', 'seal') == 0 then
    wanted_queues, queues = giving(names_of, ids, kind)
    wake(queues)
    if #ids > 0 then
      local more = true
      while more and #leases < number and stopped < MOVES do
        local these = take_these(ids, lane, kind, number - #leases)
        lease_all(these, owner, lease_ms, leases)
        more = #these > 0
      end
    elseif number > 0 then
      local sources = sources_of(queues, lane)
      local more, looked, are_limited = #sources > 0, 0, false
      for i = 1, #queues do are_limited = are_limited or line(queues[i]).is_limited end
      while more and #leases < number and looked < MOVES + number and stopped < MOVES do
        local these
        these, more = take_next(sources, number - #leases)
        looked = looked + #these
        lease_all(these, owner, lease_ms, leases)
        if next(rooms) or stopped > 0 or are_limited then
          more = #these > 0
        end
      end
      if #leases < number then
        for i = 1, #sources do arm(sources[i].queue) end
      end
    end
  end
  follow() -- who waited for what expired is for the next claim
  local turned = tell_rooms()
  flush()
  local of_queues, told = {}, {}
  for i = 1, #leases do
    local queue = rows[leases[i][1]][QUEUE]
    if not told[queue] then
      told[queue] = true
      of_queues[#of_queues + 1] = queue
      of_queues[#of_queues + 1] = queue_name(queue)
    end
  end
  return { leases, cancelled_of(owner), next_due(wanted_queues), buried, turned, of_queues }
end
