-- Selections: which jobs, newest enqueued first, looked for where there are fewest.
--
-- `selection` is [ids | false, states, reasons, queue | false, task | false, key | false,
-- group | false, text | false, name of its tag | false, of its workflow | false, since ms | false,
-- before ms | false]: states and reasons as sets {value: true}, the task packed, the text in
-- lower case, names as `by_name` has them.

local CHUNK = 250 -- rows read at a time: a page of 100 seldom needs more
local FEW = 5000 -- members of sorted sets that are read whole and put in order
local ZEROS = string.rep('\0', 16)

local selection = args[3]
local s_ids, s_states, s_reasons = selection[1], selection[2], selection[3]
local s_queue, s_task, s_key, s_group = selection[4], selection[5], selection[6], selection[7]
local s_text, s_tag, s_workflow = selection[8], selection[9], selection[10]
local s_since, s_before = selection[11], selection[12]
local s_number = s_queue and queue_number(s_queue)
local any_state, any_reason = next(s_states) == nil, next(s_reasons) == nil

local function wants(state) return any_state or s_states[state] end

local function seq_of(it) return (struct.unpack('>I6', it)) end

-- A sheet without its body and headers, for lists: [task, body] or [task, body, headers, ..].
local function lean(sheet)
  local body = behind(sheet, 2)
  if string.byte(sheet) == 0x92 then return string.sub(sheet, 1, body - 1) .. '\196\0' end
  local rest = behind(sheet, behind(sheet, body))
  return string.sub(sheet, 1, body - 1) .. '\196\0\192' .. string.sub(sheet, rest)
end

local function says(id)
  local kept = call('HGET', P .. 'errors', id)
  if not kept then return false end
  for _, error in ipairs(cmsgpack.unpack(kept)) do
    if string.find(string.lower(error[3][2]), s_text, 1, true) then return true end
  end
  return false
end

local function has_name(row, name)
  local names = row[EXTRA] and row[EXTRA][E_NAMES] or {}
  for i = 1, #names do
    if names[i] == name then return true end
  end
  return false
end

local function matches(id, row, sheet)
  if not wants(row[STATE]) then return false end
  if not any_reason and not (row[REASON] and s_reasons[row[REASON]]) then return false end
  if s_queue and row[QUEUE] ~= s_number then return false end
  if s_task and not (sheet and string.sub(sheet, 2, #s_task + 1) == s_task) then return false end
  if s_key and not (row[KEY] and keying().name(row) == s_key) then return false end
  if s_group and row[GROUP] ~= s_group then return false end
  if s_since and row[ENQUEUED] < s_since or s_before and row[ENQUEUED] >= s_before then
    return false
  end
  if s_tag and not has_name(row, s_tag) then return false end
  if s_workflow and not has_name(row, s_workflow) then return false end
  return not s_text or says(id)
end

-- -- where to look: each gives the next members (sequence and id) below `before` --

local function put_in_order(members)
  table.sort(members, function(a, b) return seq_of(a) > seq_of(b) end)
  return members
end

-- The next of a list in memory.
local function listed(members)
  local at = 1
  return function(before, number)
    local found = {}
    while members[at] and #found < number do
      if seq_of(members[at]) < before then found[#found + 1] = members[at] end
      at = at + 1
    end
    return found
  end
end

local function given()
  local members = {}
  read_rows(s_ids)
  for i = 1, #s_ids do
    local row = rows[s_ids[i]]
    if row then members[#members + 1] = member(s_ids[i], row) end
  end
  return listed(put_in_order(members))
end

-- By a name: members of by_key, by_group and by_name are name .. "\0" .. member.
local function named(key, name)
  return function(before, number)
    local top = '(' .. name .. '\0' .. struct.pack('>I6', before)
    local found = call('ZREVRANGEBYLEX', P .. key, top, '[' .. name .. '\0', 'LIMIT', 0, number)
    for i = 1, #found do found[i] = string.sub(found[i], -22) end
    return found
  end
end

local function dead(before, number)
  local top = '(' .. before
  return call('ZREVRANGEBYSCORE', P .. 'dead', top, '-inf', 'LIMIT', 0, number)
end

-- All jobs, block by block.
local function all()
  local blocks
  return function(before, number)
    if not blocks then
      blocks = call('HKEYS', P .. 'orders')
      for i = 1, #blocks do blocks[i] = tonumber(blocks[i]) end
      table.sort(blocks, function(a, b) return a > b end)
    end
    local found = {}
    for i = 1, #blocks do
      local block = blocks[i]
      if block * BLOCK < before then
        local ids = call('GET', P .. 'order:' .. block) or ''
        for at = min(#ids / 16, before - block * BLOCK) - 1, 0, -1 do
          local id = string.sub(ids, at * 16 + 1, at * 16 + 16)
          if id ~= ZEROS then
            found[#found + 1] = struct.pack('>I6', block * BLOCK + at) .. id
            if #found >= number then return found end
          end
        end
      end
    end
    return found
  end
end

-- The sorted sets that hold all that may match, or nil if there is no such few.
local function sets()
  local found = {}
  local queues = s_queue and { s_number } or call('HVALS', P .. 'queues')
  if #queues > 50 and (wants(READY) or wants(FAILED)) then return nil end
  for i = 1, #queues do
    local queue = queues[i]
    if wants(SUCCEEDED) or wants(CANCELLED) or wants(EXPIRED) then
      found[#found + 1] = 'done:' .. queue
    end
    if wants(FAILED) then found[#found + 1] = 'failed:' .. queue end
    if wants(READY) then
      local res = line(queue).res or {}
      for lane = 0, 1 do
        local key = 'ready:' .. queue .. ':' .. lane
        found[#found + 1] = key
        for j = 1, #res do found[#found + 1] = key .. ':' .. res[j] end
      end
    end
  end
  if wants(SCHEDULED) then found[#found + 1] = 'scheduled' end
  if wants(RUNNING) then found[#found + 1] = 'leases' end
  if wants(BLOCKED) then found[#found + 1] = 'blocked' end
  if wants(SUCCEEDED) or wants(FAILED) or wants(CANCELLED) or wants(EXPIRED) then
    found[#found + 1], found[#found + 2] = 'retained', 'kept'
  end
  return found
end

local function few()
  local keys = sets()
  local number = keys and 0 or FEW + 1
  for i = 1, keys and #keys or 0 do
    number = number + call('ZCARD', P .. keys[i])
    if number > FEW then break end
  end
  if number > FEW then return nil end
  local members = {}
  for i = 1, #keys do
    local found = call('ZRANGE', P .. keys[i], 0, -1)
    for j = 1, #found do members[#members + 1] = found[j] end
  end
  return listed(put_in_order(members))
end

local function source()
  if s_ids then return given() end
  if s_queue and not s_number then return listed({}) end
  if s_key then return named('by_key', s_key) end
  if s_workflow then return named('by_name', s_workflow) end
  if s_tag then return named('by_name', s_tag) end
  if s_group then return named('by_group', s_group) end
  local only_dead = not any_reason
  if not any_state and s_states[FAILED] and next(s_states) == FAILED then
    only_dead = only_dead or next(s_states, FAILED) == nil
  end
  if only_dead then return dead end
  if not any_state or s_queue then return few() or all() end
  return all()
end

-- Some matching ids, newest first; where to go on (false: that was all); rows looked at.
local function select_jobs(limit, before, most)
  local found, looked, give = {}, 0, source()
  while looked < most do
    local number = min(CHUNK, most - looked)
    local members = give(before, number)
    local ids = {}
    for i = 1, #members do ids[i] = id_of(members[i]) end
    read_rows(ids)
    local sheets = s_task and #ids > 0 and call('HMGET', P .. 'bodies', unpack(ids)) or {}
    for i = 1, #members do
      if #found >= limit then return found, before, looked end
      local row = rows[ids[i]]
      before, looked = seq_of(members[i]), looked + 1
      if row and matches(ids[i], row, sheets[i]) then found[#found + 1] = ids[i] end
    end
    if #members < number then return found, false, looked end
  end
  return found, before, looked
end
