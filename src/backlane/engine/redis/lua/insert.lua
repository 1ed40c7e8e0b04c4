-- Taking jobs in: what append and restore share.

-- The number of a resource, made if it is new.
local function resource_number(name)
  local number = call('HGET', P .. 'resources', name)
  if number then return tonumber(number) end
  number = call('HINCRBY', P .. 'meta', 'numbers', 1)
  call('HSET', P .. 'resources', name, number)
  call('HSET', P .. 'resource_names', number, name)
  return number
end

-- Lets a job be found by its names, and keeps how long it stays and whose newest it may be.
local function mark(id, row, marks)
  local x = extra(row)
  x[E_NAMES], x[E_KEEP], x[E_LATEST] = marks[1], marks[2], marks[3]
  for i = 1, #(marks[1] or {}) do
    push(zadds, 'by_name', 0, marks[1][i] .. '\0' .. member(id, row))
  end
end

-- Writes the ids of new jobs behind those of all others; returns the first one's sequence.
local function enlist(ids)
  local n = #ids
  local first = call('HINCRBY', P .. 'meta', 'seq', n) - n + 1
  local at = 1
  while at <= n do
    local seq = first + at - 1
    local block, place = floor(seq / BLOCK), seq % BLOCK
    local last = min(n, at + BLOCK - place - 1)
    -- A new block gets its whole length: one that grew would take twice as much.
    if place == 0 or seq == 1 then call('SETRANGE', P .. 'order:' .. block, 16383, '\0') end
    call('SETRANGE', P .. 'order:' .. block, place * 16, table.concat(ids, '', at, last))
    call('HINCRBY', P .. 'orders', block, last - at + 1)
    at = last + 1
  end
  return first
end
