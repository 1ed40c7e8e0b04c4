-- Edges: which jobs wait for which, and what comes of it when one ends. Behind `moves.lua`.
--
--   edges    hash id of who is waited for -> [16 bytes id of who waits][6 bytes generation][when] of
--            each; when is 0 ended, 1 succeeded, 2 failed, as in a sheet. Kept until that job is
--            forgotten: what an unfinished job waited for is not pruned
--   awaits   hash id -> [16 bytes id][when] of all that it gave its lease back for, since it came
--            or was redriven last
-- An edge counts while its generation is that of the job that waits: what is left of earlier
-- times need not be looked for. Generation 0 never counts.

-- Keeps what ended the execution that is now running; the newest twenty are enough to read.
local function keep_error(id, row, error)
  if not error then return end
  local text = call('HGET', P .. 'errors', id)
  local kept = text and cmsgpack.unpack(text) or {}
  kept[#kept + 1] = { row[ATTEMPT] + 1, wall, error }
  while #kept > 20 do table.remove(kept, 1) end
  push(hsets, 'errors', id, cmsgpack.pack(kept))
end

local edge_works
local function edging()
  if edge_works then return edge_works end
  local it, tied = {}, {}
  edge_works = it

  local STATE_NAMES = { [5] = 'succeeded', [6] = 'failed', [7] = 'cancelled', [8] = 'expired' }

  local function is_met(when, state)
    return when == 0 or (when == 1) == (state == SUCCEEDED)
  end

  -- The edges of a text by job, in order; of several to the same job the first counts.
  local function each_edge(text)
    local found, seen = {}, {}
    for at = 1, #text, 17 do
      local job = string.sub(text, at, at + 15)
      if not seen[job] then
        seen[job] = true
        found[#found + 1] = { job, string.byte(text, at + 16) }
      end
    end
    return found
  end

  local function ids_of(edges)
    local ids = {}
    for i = 1, #edges do ids[i] = edges[i][1] end
    return ids
  end

  local function tie(id, generation, job, when)
    tied[job] = (tied[job] or '') .. id .. struct.pack('>I6', generation) .. string.char(when)
  end

  before_flush[#before_flush + 1] = function()
    local jobs, n = {}, 0
    for job in pairs(tied) do
      n = n + 1
      jobs[n] = job
    end
    for first = 1, n, 1000 do
      local last = min(n, first + 999)
      local kept = call('HMGET', P .. 'edges', unpack(jobs, first, last))
      for i = first, last do
        push(hsets, 'edges', jobs[i], (kept[i - first + 1] or '') .. tied[jobs[i]])
      end
    end
    tied = {}
  end

  local function next_generation() return call('HINCRBY', P .. 'meta', 'generation', 1) end

  -- Ties a job by the edges of its sheet. Of a new one (`is_new`) they may lead to jobs that are
  -- still to be stored, and to those that failed already, which are followed afterwards: the
  -- first of these is returned, with the state it is in.
  function it.tie_after(id, row, text, is_new)
    local x, edges = extra(row), each_edge(text)
    local failed, failed_as
    x[E_AFTER], x[E_OPEN], x[E_GENERATION] = #text / 17, 0, next_generation()
    read_rows(ids_of(edges))
    for i = 1, #edges do
      local job, when = edges[i][1], edges[i][2]
      local other = rows[job]
      local state = other and other[STATE]
      local fails = state and state > RUNNING and not is_met(when, state)
      if other and state > RUNNING and not fails then
        tie(id, 0, job, when)
      elseif other or is_new then
        tie(id, x[E_GENERATION], job, when)
        x[E_OPEN] = x[E_OPEN] + 1
        if fails and not failed then failed, failed_as = job, state end
      end
    end
    return failed, failed_as
  end

  -- Lets a running job wait for others, however they end: ids one behind the other.
  function it.await(id, row, text)
    local x, edges, known = extra(row), each_edge(text), {}
    x[E_GENERATION], x[E_OPEN] = next_generation(), 0
    read_rows(ids_of(edges))
    for i = 1, #edges do
      local job = edges[i][1]
      local other = job ~= id and rows[job]
      local is_open = other and other[STATE] <= RUNNING
      if other then
        tie(id, is_open and x[E_GENERATION] or 0, job, 0)
        known[#known + 1] = job .. '\0'
      end
      if is_open then x[E_OPEN] = x[E_OPEN] + 1 end
    end
    if #known > 0 then
      local before = call('HGET', P .. 'awaits', id) or ''
      push(hsets, 'awaits', id, before .. table.concat(known))
    end
    put_back(id, row)
  end

  local function to_text(id)
    local hex = string.gsub(id, '.', function(c) return string.format('%02x', string.byte(c)) end)
    return table.concat({ string.sub(hex, 1, 8), string.sub(hex, 9, 12), string.sub(hex, 13, 16),
      string.sub(hex, 17, 20), string.sub(hex, 21) }, '-')
  end

  -- Ends a job that hoped in vain.
  function it.skip(id, row, job, state)
    keep_error(id, row, { 'Skipped', 'job ' .. to_text(job) .. ', which it waited for, ended as '
      .. STATE_NAMES[state], '', '' })
    finish(id, row, CANCELLED)
  end

  local function follow_one(job, state, id, when)
    local row = rows[id]
    local x = row[EXTRA]
    if not is_met(when, state) then
      it.skip(id, row, job, state)
      return
    end
    x[E_OPEN] = x[E_OPEN] - 1
    changed[id] = true
    if x[E_OPEN] > 0 then return end
    -- Who ran already is due whatever the wall clock says by now: it may have been set.
    get_in_line(id, row, row[TOKEN] > 0 or row[PLACE] <= wall)
  end

  -- Calls `visit` with each edge of these texts, [job, state, text], that still counts.
  local function each_open(texts, visit)
    local ids = {}
    for i = 1, #texts do
      for at = 1, #texts[i][3], 23 do ids[#ids + 1] = string.sub(texts[i][3], at, at + 15) end
    end
    read_rows(ids)
    for i = 1, #texts do
      local text = texts[i][3]
      for at = 1, #text, 23 do
        local id = string.sub(text, at, at + 15)
        local x = rows[id] and rows[id][STATE] == BLOCKED and rows[id][EXTRA]
        if x and x[E_OPEN] > 0 and x[E_GENERATION] == struct.unpack('>I6', text, at + 16) then
          visit(texts[i][1], texts[i][2], id, string.byte(text, at + 22))
        end
      end
    end
  end

  function it.follow(texts)
    each_open(texts, follow_one)
    for i = 1, #texts do
      if not rows[texts[i][1]] then push(hdels, 'edges', texts[i][1]) end
    end
  end

  -- A job that had ended runs again: who had seen it end waits for it no more.
  function it.close(job)
    local text = call('HGET', P .. 'edges', job)
    if not text then return end
    push(hsets, 'edges', job, (string.gsub(text, '(' .. string.rep('.', 16) .. ')......(.)',
      '%1\0\0\0\0\0\0%2')))
  end

  -- A job that had ended runs again: it needs nothing of what it gave its lease back for before.
  function it.forget_awaited(id)
    local edges = each_edge(call('HGET', P .. 'awaits', id) or '')
    if #edges == 0 then return end
    flush()
    for i = 1, #edges do
      local job = edges[i][1]
      local text, left = call('HGET', P .. 'edges', job) or '', {}
      for at = 1, #text, 23 do
        if string.sub(text, at, at + 15) ~= id then
          left[#left + 1] = string.sub(text, at, at + 22)
        end
      end
      if #left > 0 then
        call('HSET', P .. 'edges', job, table.concat(left))
      else
        call('HDEL', P .. 'edges', job)
      end
    end
    call('HDEL', P .. 'awaits', id)
  end

  -- Of some jobs that have ended those that an unfinished one waits or waited for, as a set.
  function it.needed(ids)
    local found, texts = {}, {}
    for first = 1, #ids, 1000 do
      local last = min(#ids, first + 999)
      local kept = call('HMGET', P .. 'edges', unpack(ids, first, last))
      for i = first, last do
        if kept[i - first + 1] then texts[#texts + 1] = { ids[i], kept[i - first + 1] } end
      end
    end
    for i = 1, #texts do
      local waiters = {}
      for at = 1, #texts[i][2], 23 do waiters[#waiters + 1] = string.sub(texts[i][2], at, at + 15) end
      read_rows(waiters)
      for j = 1, #waiters do
        local row = rows[waiters[j]]
        if row and row[STATE] <= RUNNING then found[texts[i][1]] = true end
      end
    end
    return found
  end

  -- The edges at the end of a job's sheet.
  function it.after(id, row)
    local x = row[EXTRA]
    if not x or x[E_AFTER] == 0 then return '' end
    return string.sub(call('HGET', P .. 'bodies', id), -17 * x[E_AFTER])
  end

  -- The job for which one that is to run again would wait in vain, and how that ended.
  function it.in_vain(id, row)
    local edges = each_edge(it.after(id, row))
    read_rows(ids_of(edges))
    for i = 1, #edges do
      local other = rows[edges[i][1]]
      if other and other[STATE] > RUNNING and not is_met(edges[i][2], other[STATE]) then
        return edges[i][1], other[STATE]
      end
    end
  end

  -- What a job still waits for, its edges as in a sheet; and all else that it ever awaited, ids.
  -- Of what is not known any more: it went elsewhere, where it will end.
  function it.tell(id, row)
    local x, open, waited, told = row[EXTRA], {}, {}, {}
    local after, awaited = each_edge(it.after(id, row)), call('HGET', P .. 'awaits', id) or ''
    local edges = each_edge(awaited)
    for i = 1, #after do
      told[after[i][1]] = true
      edges[#edges + 1] = after[i]
    end
    read_rows(ids_of(edges))
    for i = 1, #edges do
      local job, when = edges[i][1], edges[i][2]
      local kept = x[E_OPEN] > 0 and not (rows[job] and rows[job][STATE] > RUNNING)
        and call('HGET', P .. 'edges', job)
      local mine = id .. struct.pack('>I6', x[E_GENERATION])
      if kept and string.find(kept, mine, 1, true) then
        open[job] = when
      elseif i <= #edges - #after and not told[job] then
        waited[#waited + 1] = job
      end
    end
    local text = {}
    for job, when in pairs(open) do text[#text + 1] = job .. string.char(when) end
    return table.concat(text), table.concat(waited)
  end

  -- Whether one of these edges leads to a job that runs.
  function it.are_some_running(text)
    for at = 1, #text, 17 do
      local other = rows[string.sub(text, at, at + 15)]
      if other and other[STATE] == RUNNING then return true end
    end
    return false
  end

  -- Ties a job from another store by what it still waits for, and what it waited for.
  function it.tie_again(id, row, open, waited, after_text)
    local x, edges, awaited, told = extra(row), each_edge(open), {}, {}
    x[E_GENERATION], x[E_OPEN] = next_generation(), #edges
    local after = each_edge(after_text)
    for i = 1, #edges do
      tie(id, x[E_GENERATION], edges[i][1], edges[i][2])
      told[edges[i][1]] = true
    end
    for i = 1, #after do
      if not told[after[i][1]] then tie(id, 0, after[i][1], after[i][2]) end
      told[after[i][1]] = 'after'
    end
    for at = 1, #waited, 16 do
      local job = string.sub(waited, at, at + 15)
      tie(id, 0, job, 0)
      awaited[#awaited + 1] = job .. '\0'
    end
    for i = 1, #edges do
      if told[edges[i][1]] ~= 'after' then awaited[#awaited + 1] = edges[i][1] .. '\0' end
    end
    if #awaited > 0 then push(hsets, 'awaits', id, table.concat(awaited)) end
  end

  it.each_edge, it.tie, it.follow_one = each_edge, tie, follow_one
  return it
end

-- Follows the edges of all that ended in this call, and of those that end by it: one after the
-- other, for a chain may be of any length.
local function follow()
  local done = 0
  while done < #ended_jobs do
    flush()
    local n, texts = #ended_jobs, nil
    while done < n do
      local ids, first = {}, done
      done = min(n, done + 2000)
      for i = first + 1, done, 2 do ids[#ids + 1] = ended_jobs[i] end
      local kept = call('HMGET', P .. 'edges', unpack(ids))
      for i = 1, #ids do
        if kept[i] then
          texts = texts or {}
          texts[#texts + 1] = { ids[i], ended_jobs[first + 2 * i], kept[i] }
        end
      end
    end
    if texts then edging().follow(texts) end
  end
  for i = #ended_jobs, 1, -1 do ended_jobs[i] = nil end
end
