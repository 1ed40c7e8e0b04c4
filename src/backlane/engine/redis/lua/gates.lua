-- Gates: what jobs are under, what room that leaves, and who waits for it.
--
-- A gate is one use: 'l' or 't' (a turn), the limit's name, "\0", its part; a job has its turns
-- before its limits. It is kept while
-- an unfinished job has that use, somebody acquired it, or its bucket is not full again. Which
-- gates may have room for jobs blocked on them in a queue is in `open:<queue>`, by when: who
-- looks there need not look at those that are full.
--   gates        hash use -> packed [number, jobs, held, spent us, acquired, ready, blocked]: with
--                ready and blocked by queue; number is of the sets blocked:<number>:<queue>
--   limits       hash name -> packed [declared | false, tuned | false]; a limit is [concurrency |
--                false, interval us | false, burst, number, per ms, is per group]
--   limited      hash name -> jobs that run under it (field 'r' .. name), or wait ('b' .. name)
--   acquired     member [2 bytes length][use][holder], score end, boot ms
--   waited       uses that jobs are blocked on, score 0
--   idle_gates   use, score wall ms: nobody has it, but its bucket is full only then

local SLACK_US = 1000000 -- as in model/limit.py
local rung_queues, rung_jobs = {}, {} -- numbers of queues, ids of jobs: for `ring()`

-- What plain jobs never need is made when it is first asked for: each function that a script
-- makes takes its time in every call.
local gate_works
local function gating()
  if gate_works then return gate_works end
  local it = {}
  gate_works = it
  local gates, limits, dirty = {}, {}, {}

  local function limit_of(name)
    local limit = limits[name]
    if limit == nil then
      local text = call('HGET', P .. 'limits', name)
      local both = text and cmsgpack.unpack(text)
      limit = both and (both[2] or both[1]) or false
      limits[name] = limit
    end
    return limit
  end

  local function gate_of(use)
    local gate = gates[use]
    if not gate then
      local text = call('HGET', P .. 'gates', use)
      local kept = text and cmsgpack.unpack(text) or { 0, 0, 0, 0, 0, {}, {} }
      gate = {
        use = use, is_turn = string.byte(use) == 116, limit = string.match(use, '^.(%Z*)'),
        number = kept[1], jobs = kept[2], held = kept[3], spent = kept[4], acquired = kept[5],
        ready = kept[6], blocked = kept[7],
      }
      gate.is_waited = next(gate.blocked) ~= nil
      gates[use] = gate
    end
    return gate
  end

  local function touch(gate, is_freed)
    dirty[gate.use] = gate
    if is_freed then gate.is_freed = true end
  end

  -- -- room --

  -- The bucket's sums of model/limit.py: what it lacks, and how many may begin now.
  local function missing(gate, limit)
    local whole, ahead = limit[3] * limit[2], max(0, gate.spent - wall * 1000)
    return ahead > whole + SLACK_US and 0 or min(ahead, whole)
  end

  local function tokens(gate, limit)
    return floor((limit[3] * limit[2] - missing(gate, limit)) / limit[2])
  end

  -- Until there is one token more than now, in ms; nil: it is full.
  local function next_token_ms(gate, limit)
    if missing(gate, limit) == 0 then return nil end
    local left = gate.spent - wall * 1000 - (limit[3] - tokens(gate, limit) - 1) * limit[2]
    return math.ceil(left / 1000)
  end

  -- How many more it allows. `running`: those under it that are not counted as its holders.
  local function room(gate, running)
    local held = gate.held + gate.acquired + (running or 0)
    if gate.is_turn then return max(0, 1 - held) end
    local limit, most = limit_of(gate.limit), math.huge
    if not limit then return most end
    if limit[1] then most = max(0, limit[1] - held) end
    if limit[2] then most = min(most, tokens(gate, limit)) end
    return most
  end

  local function spend(gate)
    local limit = not gate.is_turn and limit_of(gate.limit)
    if limit and limit[2] then
      gate.spent = wall * 1000 + missing(gate, limit) + limit[2]
      touch(gate)
    end
  end

  local function has_turn(x, i)
    for j = 1, x[E_TURNS] and #x[E_TURNS] or 0 do
      if x[E_TURNS][j] == i then return true end
    end
    return false
  end

  -- Where a row stands among those that are blocked on a gate.
  local function score_of(gate, row)
    local place = row[EXTRA][E_VIRTUAL] or row[PLACE]
    if gate.is_turn then return place end
    return (9 - row[RANK]) * LEVEL + place
  end

  local function blocked_key(gate, queue)
    if gate.number == 0 then
      gate.number = call('HINCRBY', P .. 'meta', 'numbers', 1)
      touch(gate)
    end
    return 'blocked:' .. gate.number .. ':' .. queue
  end

  -- Who is blocked in a queue, in this call: what is not written yet, and what is not read again.
  local function news_of(gate, queue)
    gate.news = gate.news or {}
    local news = gate.news[queue]
    if not news then
      news = { added = {}, gone = {}, number = 0 }
      gate.news[queue] = news
    end
    return news
  end

  -- The one that is woken first: score, member; nil: nobody waits.
  local function head(gate, queue)
    if (gate.blocked[queue] or 0) <= 0 then return nil end
    local news = news_of(gate, queue)
    if news.head then return news.head[1], news.head[2] end
    local best, its_member
    local got = call('ZRANGE', P .. blocked_key(gate, queue), 0, news.number, 'WITHSCORES')
    for i = 1, #got, 2 do
      if not news.gone[got[i]] then
        best, its_member = tonumber(got[i + 1]), got[i]
        break
      end
    end
    for one, score in pairs(news.added) do
      if not best or score < best or score == best and one < its_member then
        best, its_member = score, one
      end
    end
    if best then news.head = { best, its_member } end
    return best, its_member
  end

  local function file(gate, queue, score, its_member, by)
    local news = news_of(gate, queue)
    if by > 0 then
      push(zadds, blocked_key(gate, queue), score, its_member)
      local best, first = head(gate, queue)
      news.added[its_member], news.gone[its_member] = score, nil
      if not best or score < best or score == best and its_member < first then
        news.head = { score, its_member }
      end
    else
      push(zrems, blocked_key(gate, queue), its_member)
      if not news.added[its_member] then news.number = news.number + 1 end
      news.added[its_member], news.gone[its_member] = nil, true
      if news.head and news.head[2] == its_member then news.head = nil end
    end
  end

  -- The first use for which a job that is in line now has to wait; 0: none. Turns that it finds
  -- free on the way there are its own from now on. `woken`: the use that lets it in.
  local function first_full(id, row, woken)
    local x, queue = row[EXTRA], row[QUEUE]
    for i = 1, #x[E_USES] do
      if not has_turn(x, i) then
        local gate = gate_of(x[E_USES][i])
        if i ~= woken then
          if (gate.ready[queue] or 0) >= room(gate) then return i end
          local score, first = head(gate, queue)
          local ours = score and score_of(gate, row)
          if score and (score < ours or score == ours and first < member(id, row)) then return i end
        end
        if gate.is_turn then
          x[E_TURNS] = x[E_TURNS] or {}
          table.insert(x[E_TURNS], i)
          gate.held = gate.held + 1
          touch(gate)
        end
      end
    end
    return 0
  end

  -- The first use that a ready job may not be leased for; 0: none.
  local function first_shut(row)
    local x = row[EXTRA]
    for i = 1, #x[E_USES] do
      if not has_turn(x, i) and room(gate_of(x[E_USES][i])) <= 0 then return i end
    end
    return 0
  end

  -- -- counting --

  local function add_to(counts_of, queue, by)
    local now = (counts_of[queue] or 0) + by
    counts_of[queue] = now > 0 and now or nil
    return now
  end

  -- Counts an unfinished row under its uses as its state says (by +1), or no more (by -1).
  local function count_uses(id, row, by)
    local x, state, queue = row[EXTRA], row[STATE], row[QUEUE]
    for i = 1, #x[E_USES] do
      local gate = gate_of(x[E_USES][i])
      gate.jobs = gate.jobs + by
      if state == READY then
        add_to(gate.ready, queue, by)
      elseif state == RUNNING and not gate.is_turn then
        gate.held = gate.held + by
        add('limited', by, 'r' .. gate.limit)
      elseif state == BLOCKED and x[E_ON] == i then
        if not gate.is_turn then add('limited', by, 'b' .. gate.limit) end
        file(gate, queue, score_of(gate, row), member(id, row), by)
        if add_to(gate.blocked, queue, by) <= 0 then
          gate.left = gate.left or {}
          gate.left[queue] = true
        end
      end
      touch(gate, by < 0 and (state == READY or state == RUNNING))
    end
  end

  -- A lease is given: it is under its limits from now on, and takes their tokens.
  local function lease_uses(row)
    local uses = row[EXTRA][E_USES]
    for i = 1, #uses do
      local gate = gate_of(uses[i])
      add_to(gate.ready, row[QUEUE], -1)
      if not gate.is_turn then
        gate.held = gate.held + 1
        add('limited', 1, 'r' .. gate.limit)
        spend(gate)
      end
      touch(gate)
    end
  end

  -- A job from another store brings the turns that it holds.
  function it.take_turns(x)
    for j = 1, #x[E_TURNS] do
      local gate = gate_of(x[E_USES][x[E_TURNS][j]])
      gate.held = gate.held + 1
      touch(gate)
    end
  end

  -- A job has ended, or is forgotten: its turns are free.
  local function let_go_of_turns(x)
    for j = 1, x[E_TURNS] and #x[E_TURNS] or 0 do
      local gate = gate_of(x[E_USES][x[E_TURNS][j]])
      gate.held = gate.held - 1
      touch(gate, true)
    end
    x[E_TURNS] = false
  end

  -- -- keeping --

  -- Until there is a token, in ms; 0: there is one, or none is needed.
  local function token_in_ms(gate)
    local limit = not gate.is_turn and limit_of(gate.limit)
    if not limit or not limit[2] or tokens(gate, limit) > 0 then return 0 end
    return next_token_ms(gate, limit)
  end

  -- When a gate will have one token more, wall ms; nil: not by time.
  local function next_look(gate)
    local limit = not gate.is_turn and limit_of(gate.limit)
    local wait = limit and limit[2] and next_token_ms(gate, limit)
    return wait and wall + wait
  end

  -- Says in which queues a gate may have room for those that are blocked on it, and when.
  local function post(gate)
    local at = gate.is_freed and 0 or next_look(gate)
    for queue in pairs(gate.left or {}) do
      if not gate.blocked[queue] then call('ZREM', P .. 'open:' .. queue, gate.use) end
    end
    for queue in pairs(gate.blocked) do
      if at then call('ZADD', P .. 'open:' .. queue, 'LT', at, gate.use) end
      if gate.is_freed then rung_queues[queue] = true end
    end
  end

  -- The same once a claim of these queues has woken what it could.
  local function post_again(gate, queues)
    for i = 1, #queues do
      local queue = queues[i]
      if (gate.blocked[queue] or 0) > 0 then
        local key, at = P .. 'open:' .. queue, next_look(gate)
        if room(gate) > (gate.ready[queue] or 0) then
          call('ZADD', key, 0, gate.use)
        elseif at then
          call('ZADD', key, at, gate.use)
        else
          call('ZREM', key, gate.use)
        end
      else
        call('ZREM', P .. 'open:' .. queue, gate.use)
      end
    end
  end

  local function keep(gate)
    local is_waited = next(gate.blocked) ~= nil
    if is_waited and not gate.is_waited then push(zadds, 'waited', 0, gate.use) end
    if gate.is_waited and not is_waited then push(zrems, 'waited', gate.use) end
    gate.is_waited = is_waited
    if gate.jobs <= 0 and gate.acquired <= 0 and gate.spent <= wall * 1000 then
      push(hdels, 'gates', gate.use)
      return
    end
    local kept = { gate.number, gate.jobs, gate.held, gate.spent, gate.acquired, gate.ready,
      gate.blocked }
    push(hsets, 'gates', gate.use, cmsgpack.pack(kept))
    if gate.jobs <= 0 and gate.acquired <= 0 then
      push(zadds, 'idle_gates', math.ceil(gate.spent / 1000), gate.use)
    end
  end

  before_flush[#before_flush + 1] = function()
    for _, gate in pairs(dirty) do
      keep(gate)
      post(gate)
      gate.is_freed, gate.news, gate.left = nil, nil, nil
    end
    dirty = {}
  end

  -- -- what is held outside of jobs --

  local function use_of(held)
    local length = struct.unpack('>I2', held)
    return string.sub(held, 3, 2 + length)
  end

  local function give_back(held)
    local gate = gate_of(use_of(held))
    gate.acquired = gate.acquired - 1
    if not gate.is_turn then add('limited', -1, 'r' .. gate.limit) end
    push(zrems, 'acquired', held)
    touch(gate, true)
    local own = string.match(gate.use, '^lqueue:(%Z+)%z$')
    local queue = own and queue_number(own)
    if queue then rung_queues[queue] = true end
  end

  -- What ended by time is free at the next look.
  local ended = call('ZRANGEBYSCORE', P .. 'acquired', '-inf', boot, 'LIMIT', 0, 1000)
  for i = 1, #ended do give_back(ended[i]) end

  -- Puts a blocked job back among those that wait for its gate, if it is not there.
  function it.put_right(id, row)
    local x = row[EXTRA]
    local gate = gate_of(x[E_USES][x[E_ON]])
    local key = P .. blocked_key(gate, row[QUEUE])
    call('ZADD', key, 'NX', score_of(gate, row), member(id, row))
  end

  it.limits, it.limit_of, it.gate_of, it.touch = limits, limit_of, gate_of, touch
  it.room, it.spend = room, spend
  it.first_full, it.first_shut, it.blocked_key = first_full, first_shut, blocked_key
  it.count_uses, it.lease_uses, it.let_go_of_turns = count_uses, lease_uses, let_go_of_turns
  it.give_back, it.post_again, it.token_in_ms = give_back, post_again, token_in_ms
  it.next_look = next_look
  return it
end
