-- append_plain: what nearly every append is, in as few steps as there can be: new jobs for one
-- queue that exists, of one priority and lane, ready at once, without a key, group, resource,
-- deadline or idempotency. Stands alone: the functions of `model.lua` alone
-- would take longer to make than this takes. All else is for `append.lua`: answers wall, 2.
-- args: kind, standard max_jobs, max_bytes, queue, its number as last known | nil, its channel,
--   declared max_jobs, max_bytes | nil, priority, lane, ms of the oldest id, sum of sizes, ids,
--   sheets, sizes, attempts, pace [starts at this priority, slots, declared max_wait_ms | nil] | nil,
--   marks of all of them (see admission.lua) | nil
-- Answer: wall, 1, number of the queue, jobs, bytes, max_jobs, max_bytes, and with a pace: jobs
--   ahead of the first, running, max_wait_ms | false.

local P = string.sub(KEYS[1], 1, -5)
local call, pack = redis.call, cmsgpack.pack
local args = cmsgpack.unpack(ARGV[1])
local name, number, priority, lane = args[6], args[7], args[11], args[12]
local ids, sheets, sizes, attempts = args[15], args[16], args[17], args[18]
local pace = args[19]
local n, wall = #ids, args[1]
if not wall then
  local now = call('TIME')
  wall = now[1] * 1000 + math.floor(now[2] / 1000)
end

-- -- is all as usual? --

local meta = call('HMGET', P .. 'meta', 'seq', 'seal', 'forgotten_ms')
if not meta[1] or meta[2] or args[13] <= tonumber(meta[3] or -1) then return { wall, 2 } end
local q, r, a, got = nil, 'r' .. priority, 'a' .. priority, nil
local function look(it)
  number, q = it, P .. 'q:' .. it
  got = call('HMGET', q, 'name', 's1', 's2', 's3', 's4', 'bytes', 'd1', 'd2', 't1', 't2', r, a,
    'kind', 'rung', 'fair')
end
if number then look(number) end
if not got or got[1] ~= name then
  number = call('HGET', P .. 'queues', name)
  if not number then return { wall, 2 } end
  look(tonumber(number))
end
local ready = tonumber(got[3] or 0)
local depth = (got[2] or 0) + ready + (got[4] or 0) + (got[5] or 0) + n
local bytes = (got[6] or 0) + args[14]
-- No answer could carry more than 2^63, and nothing ever counts so far.
local max_jobs = math.min(2 ^ 62, tonumber(got[9] or args[9] or got[7] or args[4]))
local max_bytes = math.min(2 ^ 62, tonumber(got[10] or args[10] or got[8] or args[5]))
if got[13] ~= args[3] or got[15] or depth > max_jobs or bytes > max_bytes then return { wall, 2 } end
for first = 1, n > 1 and n or 0, 1000 do
  local known = call('HMGET', P .. 'rows', unpack(ids, first, math.min(n, first + 999)))
  for i = 1, #known do
    if known[i] then return { wall, 2 } end
  end
end

-- The wait of the last of them, which is the longest; the sums of model/pressure/pace.py.
local ahead, running, max_wait, predicted = 0, tonumber(got[5] or 0), nil, false
if pace then
  local fields = { 'd3', 't3' }
  for p = priority, 9 do fields[#fields + 1] = 'r' .. p end
  local more = call('HMGET', q, unpack(fields))
  for i = 3, #fields do ahead = ahead + (more[i] or 0) end
  max_wait = pace[3]
  if not args[9] then max_wait = tonumber(more[1] or nil) end
  if more[2] then max_wait = tonumber(more[2]) end
  local last, wait = ahead + n - 1, 2 ^ 53
  if last == 0 and running < pace[2] then
    wait = 0
  elseif pace[1] > 0 then
    wait = math.min(wait, math.floor((last + 1) / pace[1] * 1000))
  end
  if max_wait == 0 then max_wait = nil end
  if max_wait and wait > max_wait then return { wall, 2 } end
  predicted = wait <= 86400000 and wait
end

-- -- storing --

local seq, marks = meta[1] + 1, args[20]
local extra = marks and { false, 0, false, 0, 0, 0, false, false, false, marks[1], marks[2], marks[3] }
local function row(i)
  if marks then -- a leaf of a workflow is found by its name, and else as plain as the others
    return pack({ 2, seq + i - 1, number, lane, priority, priority, wall, wall, sizes[i], attempts[i],
      1, 0, 0, 0, false, false, false, false, false, i == n and predicted,
      false, 0, false, false, false, 0, false, extra })
  end
  return pack({ 2, seq + i - 1, number, lane, priority, priority, wall, wall, sizes[i], attempts[i],
    1, 0, 0, 0, false, false, false, false, false, i == n and predicted })
end
local set, score = P .. 'ready:' .. number .. ':' .. lane, (9 - priority) * 2 ^ 43 + wall
if n == 1 then
  local id = ids[1]
  if call('HSETNX', P .. 'rows', id, row(1)) == 0 then return { wall, 2 } end
  call('HSET', P .. 'bodies', id, sheets[1])
  call('ZADD', set, score, struct.pack('>I6', seq) .. id)
else
  local rows, bodies, members, filled = {}, {}, {}, 0
  score = string.format('%.0f', score)
  for i = 1, n do
    local id = ids[i]
    rows[filled + 1], bodies[filled + 1] = id, id
    rows[filled + 2], bodies[filled + 2] = row(i), sheets[i]
    members[filled + 1], members[filled + 2] = score, struct.pack('>I6', seq + i - 1) .. id
    filled = filled + 2
  end
  for from = 1, filled, 1000 do
    local to = math.min(filled, from + 999)
    call('HSET', P .. 'rows', unpack(rows, from, to))
    call('HSET', P .. 'bodies', unpack(bodies, from, to))
    call('ZADD', set, unpack(members, from, to))
  end
end
for j = 1, marks and marks[1] and #marks[1] or 0 do
  local named = {}
  for i = 1, n do
    named[2 * i - 1], named[2 * i] = 0, marks[1][j] .. '\0' .. struct.pack('>I6', seq + i - 1) .. ids[i]
  end
  for from = 1, 2 * n, 1000 do
    call('ZADD', P .. 'by_name', unpack(named, from, math.min(2 * n, from + 999)))
  end
end
local at = 1
while at <= n do
  local block, place = math.floor((seq + at - 1) / 1024), (seq + at - 1) % 1024
  local to = math.min(n, at + 1023 - place)
  if place == 0 then call('SETRANGE', P .. 'order:' .. block, 16383, '\0') end
  call('SETRANGE', P .. 'order:' .. block, place * 16, n == 1 and ids[1] or table.concat(ids, '', at, to))
  call('HINCRBY', P .. 'orders', block, to - at + 1)
  at = to + 1
end
call('HSET', P .. 'meta', 'seq', seq + n - 1)

-- The bell of `bells.lua`: nobody waits for a job that was not there yet.
local rung = not args[1] and tonumber(got[14] or 0)
if not rung or rung <= wall - 20 or rung > wall then
  local heard = redis.pcall('SPUBLISH', P .. args[8], name)
  if type(heard) == 'number' and heard > 0 then rung = wall end
end
call('HSET', q, 's2', ready + n, 'bytes', bytes, r, (got[11] or 0) + n, a, (got[12] or 0) + n,
  'rung', rung or 0)
return { wall, 1, number, depth, bytes, max_jobs, max_bytes, ahead, running, max_wait or false }
