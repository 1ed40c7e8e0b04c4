-- Appending: all jobs or none; what append and tick share, behind `admission.lua`.

-- -- storing --

local RULES = { s = 's', k = 'k' }
local failed_edges = {} -- [id, row, whom it waited for, how that ended]

-- What few jobs have.
local function store_extra(id, row, job)
  local x, rule = extra(row), job[RULE]
  if rule then x[E_RULE] = rule[LASTS] and wall + rule[LASTS] or RULES[rule[UNTIL]] or false end
  if job[USES] then x[E_USES] = job[USES] end
  if job[MARKS] then mark(id, row, job[MARKS]) end
  if job[AFTER] then
    local other, state = edging().tie_after(id, row, job[AFTER], true)
    if other then failed_edges[#failed_edges + 1] = { id, row, other, state } end
  end
end

local function store(job, it, seq)
  local id, delay = job[ID], job[DELAY]
  local row = {
    READY, seq, it.number, job[ITS_LANE], job[PRIO], job[PRIO],
    delay > 0 and wall + delay or wall, wall, job[BYTES], job[MOST], 1, 0, 0, 0,
    job[EXPIRES] and wall + job[EXPIRES] or false, false, job[ITS_GROUP] or false,
    job[KEY_FIELD] or false, job[ITS_RESOURCE] and resource_number(job[ITS_RESOURCE]) or false,
    false,
  }
  rows[id], changed[id], rung_jobs[id] = row, true, true
  rung_queues[it.number] = true
  push(hsets, 'bodies', id, job[SHEET])
  if job[RULE] or job[USES] or job[AFTER] or job[MARKS] then store_extra(id, row, job) end
  line_up(id, row, delay <= 0)
  count(id, row, 1)
  add('q:' .. it.number, 1, 'a' .. job[PRIO])
  if row[RESOURCE] then add_source(row) end
  if row[KEY] then
    if keying().would_hold(row) then keying().take(id, row) end
    push(zadds, 'by_key', 0, keying().name(row) .. '\0' .. member(id, row))
  end
  if row[GROUP] then push(zadds, 'by_group', 0, row[GROUP] .. '\0' .. member(id, row)) end
  return row
end

-- Lets a job that never started take the arguments of a newer one, and when it is due.
local function supplant(id, row, job)
  local most = job[RULE][MOST_MS]
  local delay = most_delayed(job, most and row[ENQUEUED] + most - wall)
  push(hsets, 'bodies', id, with_body(call('HGET', P .. 'bodies', id), job[SHEET]))
  count(id, row, -1)
  row[SIZE] = job[BYTES]
  if delay > 0 or row[PLACE] > wall then
    row[PLACE], row[RANK] = wall + max(0, delay), row[PRIORITY]
    if row[EXTRA] then row[EXTRA][E_VIRTUAL] = false end
    line_up(id, row, delay <= 0)
  end
  count(id, row, 1)
  entered(id, row)
end

-- A queue is fair or not as the latest append said.
local function set_fair(it)
  if line(it.number).is_fair == (it.is_fair or false) then return end
  if it.is_fair then
    call('HSET', P .. 'q:' .. it.number, 'fair', '1')
  else
    call('HDEL', P .. 'q:' .. it.number, 'fair')
  end
  lines[it.number] = nil
end

local function store_all(new)
  local ids, told = {}, nil
  for i = 1, #queues do
    local it = queues[i]
    if #it.mine > 0 or it.is_grown then
      if not it.number then it.number = make_queue(it.name, kind, it.declared or standard) end
      set_fair(it)
    end
  end
  for i = 1, #limits do declare_limit(limits[i][1], limits[i][2]) end
  for i = 1, #new do ids[i] = new[i][ID] end
  local first = #new > 0 and enlist(ids)
  for i = 1, #new do
    local job = new[i]
    local row = store(job, queues[job[IN]], first + i - 1)
    if job.expected then told = job; told.row = row end
  end
  if told then
    told.row[PREDICTED] = told.expected <= LONGEST_PROMISE and told.expected or false
  end
  for field, it in pairs(repeats) do
    if it and it.ends then
      push(hsets, 'repeats', field, struct.pack('>I6', it.ends) .. it.job .. it.print)
      push(zadds, 'repeats_until', it.ends, field)
    end
  end
  flush()
  for i = 1, #failed_edges do
    local it = failed_edges[i]
    if it[2][STATE] == BLOCKED then edging().skip(it[1], it[2], it[3], it[4]) end
    follow()
  end
  for i = 1, #holders_in_order do
    local holder = holders_in_order[i]
    supplant(holder, rows[holder], newcomers[holder])
  end
end

-- How full a queue is now, by the fullest of its bounds.
local function pressure(it)
  if not it.number then return '0' end
  local fullest = max((it.depth + #it.mine) / max(1, it.bounds.jobs),
    (it.bytes + it.size) / max(1, it.bounds.bytes))
  if it.bounds.wait then fullest = max(fullest, (it.longest or 0) / it.bounds.wait) end
  return string.format('%.17g', min(1, fullest))
end

-- By how many bytes the jobs that are replaced make their queues grow.
local function grow()
  local known = {}
  for i = 1, #queues do known[queues[i].name] = queues[i] end
  local grown = {}
  for i = 1, #holders_in_order do
    local row = rows[holders_in_order[i]]
    local name = queue_name(row[QUEUE])
    local it = known[name] or look_at({ name })
    known[name] = it
    if not grown[it] then grown[#grown + 1] = it end
    grown[it] = (grown[it] or 0) + newcomers[holders_in_order[i]][BYTES] - row[SIZE]
  end
  local alone = {}
  for i = 1, #grown do
    local it = grown[i]
    it.size = it.size + grown[it]
    if #it.mine == 0 and grown[it] > 0 then
      it.is_grown = true
      alone[#alone + 1] = it
    end
  end
  return alone
end

local function append()
  local job = reused()
  if job then return fault(job, 'reused') end
  local new, order = {}, {}
  local firsts, made = find_firsts()
  if clash then
    local said = fault(clash, 'key')
    said[14] = clash_with
    return said
  end
  for i = 1, #jobs do
    if not firsts[i] then
      job = jobs[i]
      new[#new + 1] = job
      local it = queues[job[IN]]
      if #it.mine == 0 then order[#order + 1] = it end
      it.mine[#it.mine + 1] = job
      it.size = it.size + job[BYTES]
    end
  end
  if #new > 0 or #holders_in_order > 0 then
    local come = {}
    for i = 1, #new do come[i] = new[i] end
    for i = 1, #holders_in_order do come[#come + 1] = newcomers[holders_in_order[i]] end
    local said = moving(come) or at_fault(new, made)
    if said then return said end
    local alone = #holders_in_order > 0 and grow() or {}
    for i = 1, #alone do order[#order + 1] = alone[i] end
    for i = 1, #order do foretell(order[i]) end
    for i = 1, #order do
      said = over_bound(order[i]) or too_slow(order[i])
      if said then return said end
    end
  end
  store_all(new)
  local waits, fullness, dues = {}, {}, replaced and {}
  for i = 1, #new do
    waits[i] = new[i].expected or false
    if dues then dues[i] = rows[new[i][ID]][PLACE] end
  end
  for i = 1, #queues do fullness[i] = pressure(queues[i]) end
  follow()
  flush()
  ring()
  return { wall, 1, firsts, fullness, waits, dues, replaced }
end
