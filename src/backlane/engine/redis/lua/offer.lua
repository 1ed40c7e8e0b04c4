-- offer: args: [[queue, lane, window, void ms | false], ..], for ms ->
--   wall, [offer, id, group | false, ..], offers whose window is full, those that are doubtful,
--   next due | false, buried
-- Offers are numbered from 1, as they were given.

local KEPT_MS = 86400000 -- marks of a lane that nobody offers any more
local offers, for_ms = args[3], args[4]
local room = {} -- of resources: what `fits` has counted

local function is_old(at) return math.abs(wall - at) > for_ms end

-- Which of these marks are of jobs that are ready, wherever in their lane.
local function still_ready(queue, lane, marked)
  local found, sources = {}, #marked > 0 and sources_of({ queue }, lane) or {}
  for i = 1, #sources do
    for first = 1, #marked, 1000 do
      local last = min(#marked, first + 999)
      local scores = call('ZMSCORE', sources[i].key, unpack(marked, first, last))
      for j = first, last do
        if scores[j - first + 1] then found[marked[j]] = true end
      end
    end
  end
  return found
end

-- The marks of a lane that count, as {member: time}, and their number; the others are dropped.
-- What comes back into line has its mark dropped (`line_up`), so that whoever is ready is
-- where he was when it was made, or was raised or changed there. `seen`: known to be ready.
local function marks_of(queue, lane, void, seen)
  local key = P .. 'offered:' .. queue .. ':' .. lane
  local all = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  local marks, gone, unseen, number = {}, {}, {}, 0
  for i = 1, #all, 2 do
    local at = tonumber(all[i + 1])
    if void and (at < void or at > wall) and is_old(at) then
      gone[#gone + 1] = all[i]
    else
      marks[all[i]], number = at, number + 1
      if not seen[all[i]] then unseen[#unseen + 1] = all[i] end
    end
  end
  local found = still_ready(queue, lane, unseen)
  for i = 1, #unseen do
    if not found[unseen[i]] then
      gone[#gone + 1] = unseen[i]
      marks[unseen[i]], number = nil, number - 1
    end
  end
  send('ZREM', key, gone)
  return marks, number
end

-- The head of a lane's line: members in order, and the resource of each.
local function head_of(queue, lane, number, marked)
  local sources = sources_of({ queue }, lane)
  if #sources == 1 then return call('ZRANGE', sources[1].key, 0, number - 1), {} end
  local all, heads, resources = {}, {}, {}
  for i = 1, #sources do
    local resource = sources[i].resource
    local it = resource and rooms[resource]
    local most = it and (it.left > 0 and min(number, it.left + marked) or 0) or number
    local got = most > 0 and call('ZRANGE', sources[i].key, 0, most - 1, 'WITHSCORES') or {}
    for j = 1, #got, 2 do all[#all + 1] = { got[j], tonumber(got[j + 1]), resource } end
  end
  table.sort(all, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    return a[1] < b[1]
  end)
  for i = 1, #all do heads[i], resources[i] = all[i][1], all[i][3] end
  return heads, resources
end

-- Names up to `most` of a line; returns their ids, and whether there are more.
local function name(heads, resources, marks, most, key)
  local ids, chosen, zadd = {}, {}, {}
  local has_more = false
  for i = 1, #heads do
    if not marks[heads[i]] and fits(room, resources[i]) then
      if #chosen == most then
        has_more = true
        break
      end
      chosen[#chosen + 1] = heads[i]
    end
  end
  for i = 1, #chosen do ids[i] = id_of(chosen[i]) end
  read_rows(ids)
  local named = {}
  for i = 1, #ids do
    local row = rows[ids[i]]
    if row and row[STATE] == READY then -- whatever the sets say
      named[#named + 1] = ids[i]
      zadd[#zadd + 1], zadd[#zadd + 2] = wall, chosen[i]
    end
  end
  send('ZADD', key, zadd)
  return named, has_more
end

local buried = bring_in({})
read_rooms()
make_way()
local is_sealed = call('HEXISTS', P .. 'meta', 'seal') == 1
local queues, open = {}, {}
for i = 1, #offers do
  local queue = queue_number(offers[i][1])
  if queue and not open[queue] and not line(queue).paused and not is_sealed then
    open[queue] = true
    queues[#queues + 1] = queue
    if line(queue).is_limited then waking().read_left(queue, line(queue)) end
  end
end
wake(queues)
local told, full, doubtful = {}, {}, {}
for i = 1, #offers do
  local it, queue = offers[i], queue_number(offers[i][1])
  if queue then
    local lane, window = it[2], it[3]
    local key = P .. 'offered:' .. queue .. ':' .. lane
    local marked = call('ZCARD', key)
    local heads, resources = head_of(queue, lane, max(window, marked) + 1, marked)
    local seen = {}
    for j = 1, #heads do seen[heads[j]] = true end
    local marks, number = marks_of(queue, lane, it[4], seen)
    if open[queue] then
      local most = max(0, window - number)
      if line(queue).left then
        local _, others = marks_of(queue, 1 - lane, false, {})
        most = max(0, min(most, line(queue).left - number - others))
      end
      local ids, has_more = name(heads, resources, marks, most, key)
      for j = 1, #ids do
        local n = #told
        told[n + 1], told[n + 2], told[n + 3] = i, ids[j], rows[ids[j]][GROUP]
      end
      if has_more and number + #ids >= window then full[#full + 1] = i end
      if number + #ids < window then arm(queue) end
    end
    call('PEXPIRE', key, KEPT_MS)
    for _, at in pairs(marks) do
      if is_old(at) then
        doubtful[#doubtful + 1] = i
        break
      end
    end
  end
end
flush()
ring()
return { wall, told, full, doubtful, next_due(queues), buried }
