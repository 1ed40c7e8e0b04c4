-- The data model of the Redis engine, and how a script reads and writes it.
--
-- This file stands in front of every verb's script, `moves.lua` behind it where jobs
-- change their state. All keys begin with P = "backlane:1:{<namespace>}:", so one hash tag
-- holds them all; KEYS[1] is P.."meta". No text of users is ever part of a key: queues and
-- resources have numbers there, and text travels as packed values or as fields of hashes.
--
-- ARGV[1] is one MessagePack array, `args`: [wall ms | nil, boot ms | nil, ...]. Without
-- times the server's own TIME rules (for both). This cmsgpack knows no `bin` type: bytes
-- come as `str` (client `raw()`), and what Lua packs for Python to read holds UTF-8 alone.
-- Ids are 16 raw bytes, in fields and members. Absent is `false` in a row, never nil.
-- Answers are RESP arrays; their first element is `wall`. Numbers are doubles: exact to 2^53.
--
-- Jobs
--   rows      hash id -> row: the packed array of what changes and what scripts decide by
--   bodies    hash id -> sheet: what never changes, packed by Python, opaque here
--             (Sheet: task, body, headers, policy, key, group, parent, resource, rule, uses,
--             workflow, tags, after: at the very end 17 bytes an edge, id and when; shorter
--             where the rest is as usual: `sheet_of`)
--   results   hash id -> result          progress  hash id -> Progress packed by Python
--   steps     hash id -> packed [[name, result], ..]   latest  hash task -> id, 6 bytes ended, result
--   errors    hash id -> packed [[attempt, at ms, [kind, message, traceback, fingerprint]], ..]
-- Where a job is (member = sequence, 6 bytes big-endian, then the id: `member(id, row)`)
--   ready:<queue>:<lane>[:<resource>]  score (9 - rank) * 2^43 + place: exact order of claims
--   scheduled    score due (= place)     leases  score end of the lease, boot ms
--   done:<queue>, failed:<queue>         score end, wall ms: succeeded, cancelled and expired;
--                                        failed. What retention prunes by
--   dead         score sequence, of all that failed: how `find` lists dead letters
--   offered:<queue>:<lane>  score when it was offered, wall ms: those that a transport carries.
--                One of who is not ready any more stays until the next offer
--   deadlines    score deadline, of those that are scheduled, ready or blocked
--   unaged       came back to an old place: `sweep` raises its rank
--   aging        score when its rank rises next: those ready at a virtual place
--   blocked      score sequence: waits for jobs, or for a gate; then also in
--   blocked:<gate>:<queue>  in the order they are woken (gates.lua)
--   retained     score when to look again: finished, kept while an unfinished job wants to read it
--   kept         score when it goes: finished, with a retention of its own
--   flagged      hash id -> owner: running, and asked to stop
-- All jobs by sequence, 16 bytes each
--   order:<k>    string: ids of sequences k*1024 .. k*1024+1023, zeros where forgotten
--   orders       hash k -> how many of the block are still known (a block of none is deleted)
-- Names
--   keys      hash field(scope, name) -> id of the job that holds it [6 bytes until: a window]
--   keys_until  zset field -> until ms (wall), of windows
--   by_key    zset of score 0: key name .. "\0" .. member: found by lexicographic range, all states
--   by_group  the same of groups       by_name  of tags ("t" before it) and workflows ("w", id)
--   repeats   hash field(scope, name) -> print (bytes) after [6 bytes until][16 bytes id]
--   repeats_until  zset field -> until ms (wall)
-- Queues
--   queues    hash name -> number        q:<number>  hash:
--     name, kind, paused ("1")           d1..d4 declared, t1..t4 tuned: max_jobs, max_bytes,
--                                        max_wait_ms, group_share (absent: not said)
--     s1..s4    jobs in each waiting state; bytes of those       f5..f8  ever finished, by state
--     and of each priority p: r<p> ready, u<p> running, a<p> appended, y<p> retried, b<p> started
--     ended, ran_ms, foretold, foretold_ms, waited_ms: of all attempts, ever
--     res       packed list of the resources' numbers that its jobs ever had
--     rung      wall ms of its last ring, 0: ring at once (bells.lua)
--     clock_us  the virtual clock of `reserve`
--     fair      "1": its order is by virtual time (fairness.lua)
--     limited   "1": limit queue:<name> is over all of its jobs
--   g:<number>   hash group -> its unfinished jobs
-- Resources
--   resources    hash name -> number     resource_names  hash number -> name
--   breakers     hash number -> Breaker packed by Python, ids of its trials in hex
--                (absent: CLOSED); also written by `claim` for trials begun
--   down         hash number -> "1": those not closed
--   ended:<number>    list of id .. packed [token, outcome, reason | false, kind, message]: what a
--                settle saw and its breaker has not heard yet (resource.py: `feed`)
--   sources:<number>  set of "<queue>:<lane>": ready sets there may be
--   arrived   hash move -> ids of its latest part (restore.lua)
-- Workers (announce.lua)
--   workers   hash owner -> its presence  beats   score boot ms of the last beat
--   gone      owners that said farewell while they held leases; score wall ms
-- meta: hash of version "1", seq, numbers (of queues and resources), secret, forgotten_ms,
--   audited (the sequence that the next sweep looks at), aged_ms (up to when they have aged),
--   seal (packed [to, since_ms, is_done, ..]: seal.py)
--
-- WHO COUNTS: nobody but `moves.lua` (`count`), for every verb; write no counter elsewhere.
-- Writes are collected and carried out by `flush()`, removals before additions: two phases
-- that may touch one job, or that read what was written, need a `flush()` between them.

local P = string.sub(KEYS[1], 1, -5)
local call = redis.call
local floor, max, min = math.floor, math.max, math.min
local args = cmsgpack.unpack(ARGV[1])
local wall, boot = args[1], args[2]
if not wall then
  local now = call('TIME')
  wall = now[1] * 1000 + floor(now[2] / 1000)
  boot = wall
end

local SCHEDULED, READY, BLOCKED, RUNNING = 1, 2, 3, 4
local SUCCEEDED, FAILED, CANCELLED, EXPIRED = 5, 6, 7, 8
local BLOCK = 1024 -- ids in a string of `order`

-- A row: the places of its array. Those from OWNER on are there once it ran.
local STATE, SEQ, QUEUE, LANE, PRIORITY, RANK, PLACE = 1, 2, 3, 4, 5, 6, 7
local ENQUEUED, SIZE, ATTEMPTS, REVISION, ATTEMPT, TOKEN, CRASHES = 8, 9, 10, 11, 12, 13, 14
local DEADLINE, PARKED, GROUP, KEY, RESOURCE, PREDICTED = 15, 16, 17, 18, 19, 20
local OWNER, LEASE_END, STARTED, CANCELLING, ENDED, RAN, REASON = 21, 22, 23, 24, 25, 26, 27
-- What few jobs have: an array, whose row is filled up to it. False or 0 is none.
--   uses: as gates.lua has them   on: which of them it is blocked on   turns: which it holds
--   after: edges at the end of its sheet   open: of those and of what it awaits, not ended yet
--   generation: of the edges that count (edges.lua)   virtual: place in a fair queue
--   rule: until when it holds its key: 's' started, 'k' succeeded, a number: wall ms
--   retained: is in `retained`, and until when   names: of its tags and workflow, in `by_name`
--   keep: how long its record is kept, ms, -1 for ever   latest: the task whose `latest` it feeds
local EXTRA = 28
local E_USES, E_ON, E_TURNS, E_AFTER, E_OPEN, E_GENERATION = 1, 2, 3, 4, 5, 6
local E_VIRTUAL, E_RULE, E_RETAINED, E_NAMES, E_KEEP, E_LATEST = 7, 8, 9, 10, 11, 12

-- Where memory is full nothing may be added any more, but by who has taken something away. For
-- verbs that must go on then: they end, free or stop jobs, or keep what has a bound by itself.
local function make_way() call('HDEL', P .. 'meta', '') end

-- -- writing: collected here, carried out by flush() --

local zadds, zrems, hsets, hdels, counts = {}, {}, {}, {}, {}
local rows, changed = {}, {} -- rows read or made in this call, by id (false: unknown)
local before_flush = {} -- functions that add to what is written

local function push(buffer, key, a, b)
  local list = buffer[key]
  if not list then
    list = {}
    buffer[key] = list
  end
  local n = #list
  list[n + 1] = a
  if b ~= nil then list[n + 2] = b end
end

-- A prefix and a number as one text: made once a call, for making it takes a printf.
local labels = {}
local function label(prefix, number)
  local of = labels[prefix]
  if not of then
    of = {}
    labels[prefix] = of
  end
  local text = of[number]
  if not text then
    text = prefix .. number
    of[number] = text
  end
  return text
end

local function add(key, by, field) -- to a counter of a hash
  local fields = counts[key]
  if not fields then
    fields = {}
    counts[key] = fields
  end
  fields[field] = (fields[field] or 0) + by
end

-- 1,000 arguments a command: a Lua stack takes no more than some thousands.
local function send(command, key, list)
  local n = #list
  for first = 1, n, 1000 do
    call(command, key, unpack(list, first, min(n, first + 999)))
  end
end

local function flush()
  for i = 1, #before_flush do before_flush[i]() end
  for key, list in pairs(zrems) do send('ZREM', P .. key, list) end
  for key, list in pairs(hdels) do send('HDEL', P .. key, list) end
  for key, list in pairs(zadds) do send('ZADD', P .. key, list) end
  for id in pairs(changed) do
    local row = rows[id]
    if row then push(hsets, 'rows', id, cmsgpack.pack(row)) end
  end
  for key, list in pairs(hsets) do send('HSET', P .. key, list) end
  for key, fields in pairs(counts) do
    for field, by in pairs(fields) do
      if by ~= 0 then
        local now = call('HINCRBY', P .. key, field, by)
        if now == 0 and (string.sub(key, 1, 2) == 'g:' or key == 'limited') then
          call('HDEL', P .. key, field)
        end
      end
    end
  end
  zadds, zrems, hsets, hdels, counts, changed = {}, {}, {}, {}, {}, {}
end

-- -- reading --

-- Reads the rows of these ids that this call has not read yet.
local function read_rows(ids)
  local wanted = {}
  for i = 1, #ids do
    if rows[ids[i]] == nil then wanted[#wanted + 1] = ids[i] end
  end
  local n = #wanted
  for first = 1, n, 1000 do
    local last = min(n, first + 999)
    local found = call('HMGET', P .. 'rows', unpack(wanted, first, last))
    for i = first, last do
      local text = found[i - first + 1]
      rows[wanted[i]] = text and cmsgpack.unpack(text)
    end
  end
end

local members = {} -- by id
local function member(id, row)
  local it = members[id]
  if not it then
    it = struct.pack('>I6', row[SEQ]) .. id
    members[id] = it
  end
  return it
end

local function id_of(it) return string.sub(it, 7) end

-- Milliseconds of a UUIDv7.
local function id_ms(id) return struct.unpack('>I6', id) end

local numbers, names, lines = {}, {}, {}

-- The number of a queue, or nil.
local function queue_number(name)
  local number = numbers[name]
  if number == nil then
    number = tonumber(call('HGET', P .. 'queues', name) or nil) or false
    numbers[name] = number
    if number then names[number] = name end
  end
  return number or nil
end

local function queue_name(number)
  local name = names[number]
  if not name then
    name = call('HGET', P .. 'q:' .. number, 'name')
    names[number] = name
  end
  return name
end

-- The settings a claim needs of a queue: {kind, paused, resources, is_fair, is_limited, blocked}.
local function line(number)
  local it = lines[number]
  if not it then
    local got = call('HMGET', P .. 'q:' .. number, 'kind', 'paused', 'res', 'fair', 'limited', 's3')
    it = { kind = got[1], paused = got[2] == '1', res = got[3] and cmsgpack.unpack(got[3]),
      is_fair = got[4] == '1', is_limited = got[5] == '1', blocked = tonumber(got[6] or 0) }
    lines[number] = it
  end
  return it
end
