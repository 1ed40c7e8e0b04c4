-- Settling: what settle and turn do with outcomes.
--
-- A settlement is [id, token, outcome, ran ms, a, b]:
--   1 succeeded: result | nil         2 retry: delay ms, error     3 snoozed: delay ms, parked
--   4 cancelled: error | nil          5 failed: reason, error      6 released
--   7 crashed: alone, error           8 awaiting: its edges, as in a sheet
-- with errors as [kind, message, traceback, fingerprint].

local ended = {} -- by key: what breakers are to hear of

local function count_attempt(row) row[ATTEMPT] = row[ATTEMPT] + 1 end

local outcomes = {
  function(id, row, result)
    count_attempt(row)
    finish(id, row, SUCCEEDED, false, result)
  end,
  function(id, row, delay_ms, error)
    keep_error(id, row, error)
    count_attempt(row)
    if row[CANCELLING] then
      finish(id, row, CANCELLED)
    elseif row[ATTEMPT] >= row[ATTEMPTS] then
      finish(id, row, FAILED, 'attempts')
    else
      add(label('q:', row[QUEUE]), 1, label('y', row[PRIORITY]))
      put_off(id, row, delay_ms)
    end
  end,
  function(id, row, delay_ms, is_parked)
    if not is_parked then
      row[PARKED] = false
    elseif not row[PARKED] then
      row[PARKED] = wall
    end
    if row[CANCELLING] then
      finish(id, row, CANCELLED)
    else
      put_off(id, row, delay_ms)
    end
  end,
  function(id, row, error)
    keep_error(id, row, error)
    finish(id, row, CANCELLED)
  end,
  function(id, row, reason, error)
    keep_error(id, row, error)
    count_attempt(row)
    finish(id, row, FAILED, reason)
  end,
  function(id, row)
    if row[CANCELLING] then
      finish(id, row, CANCELLED)
    else
      put_back(id, row)
    end
  end,
  function(id, row, is_alone, error)
    keep_error(id, row, error)
    count_attempt(row)
    if is_alone then row[CRASHES] = row[CRASHES] + 1 end
    row[LANE] = 1 -- where a running job is does not depend on it
    if row[RESOURCE] then add_source(row) end
    go_on(id, row)
  end,
  function(id, row, edges)
    if row[CANCELLING] then
      finish(id, row, CANCELLED)
    else
      edging().await(id, row, edges)
    end
  end,
}

-- Notes what a breaker is to hear of: [token, outcome, reason | false, kind, message].
local function tell_breaker(id, row, it)
  local said = { it[2], it[3], it[3] == 5 and it[5] or false }
  if it[3] == 2 or it[3] == 5 then said[4], said[5] = it[6][1], it[6][2] end
  push(ended, label('ended:', row[RESOURCE]), id .. cmsgpack.pack(said))
end

-- Carries one settlement of a current lease out.
local function carry_out(id, row, it)
  local outcome = it[3]
  if outcome ~= 6 then -- of that the attempt may not have started
    local queue = label('q:', row[QUEUE])
    add(queue, 1, 'ended')
    add(queue, it[4], 'ran_ms')
    if row[EXTRA] and row[EXTRA][E_VIRTUAL] and line(row[QUEUE]).is_fair then
      fairness().end_attempt(row, it[4])
    end
  end
  if outcome ~= 3 and outcome ~= 6 then row[PARKED] = false end -- a worker knew its task
  outcomes[outcome](id, row, it[5], it[6])
  row[RAN] = row[STATE] > RUNNING and it[4] or 0
end

-- Carries settlements out; returns the ids that were lost, those that were buried, and the
-- numbers of the resources that are concerned. Who waits for others comes last: of these some
-- may end in the same call, or by what ends in it.
local function settle_all(settlements)
  local ids, lost, buried, resources, awaiting = {}, {}, {}, {}, {}
  for i = 1, #settlements do ids[i] = settlements[i][1] end
  make_way()
  read_rows(ids)
  for i = 1, #settlements do
    local it = settlements[i]
    local id = it[1]
    local row = rows[id]
    if row and row[STATE] == RUNNING and row[TOKEN] == it[2] and not awaiting[id] then
      if row[RESOURCE] then
        if not ended[label('ended:', row[RESOURCE])] then
          resources[#resources + 1] = row[RESOURCE]
        end
        tell_breaker(id, row, it)
      end
      if it[3] == 8 then
        awaiting[#awaiting + 1], awaiting[id] = it, true
      else
        carry_out(id, row, it)
        if row[STATE] == FAILED then buried[#buried + 1] = id end
      end
    else
      lost[#lost + 1] = id
    end
  end
  follow()
  for i = 1, #awaiting do
    carry_out(awaiting[i][1], rows[awaiting[i][1]], awaiting[i])
    follow() -- one that was to stop has ended instead
  end
  flush()
  for key, list in pairs(ended) do
    send('RPUSH', P .. key, list)
    call('LTRIM', P .. key, -1000, -1) -- where no one feeds it
  end
  return lost, buried, resources
end
