-- Audit: each sweep looks at some jobs, and finds all of them in time.
--
-- A script is carried out whole or not at all, so nothing here is ever wrong by our doing. But
-- a job that is in no set any more, after somebody edited keys or restored a part of them,
-- would never run and never end; here it is put back where its row says that it is. Members
-- whose row is gone are dropped wherever they are met (`taken` in sweep.lua, claims).

local AUDITED = 200 -- jobs a sweep: about half a millisecond

local function put_right(ids)
  read_rows(ids)
  for i = 1, #ids do
    local row = rows[ids[i]]
    if row then
      local key, score = where(row)
      local found = call('ZSCORE', P .. key, member(ids[i], row))
      if not found or tonumber(found) ~= score then
        call('ZADD', P .. key, score, member(ids[i], row))
        if row[STATE] == READY then rung_queues[row[QUEUE]] = true end
      end
      if row[STATE] == BLOCKED and row[EXTRA][E_ON] > 0 then gating().put_right(ids[i], row) end
    end
  end
end

-- The block to look at next: the first known one from `block` on, or from the beginning.
local function next_block(block)
  local first, found
  local blocks = call('HKEYS', P .. 'orders')
  for i = 1, #blocks do
    local it = tonumber(blocks[i])
    first = min(first or it, it)
    if it >= block then found = min(found or it, it) end
  end
  return found or first
end

local function audit()
  local at = tonumber(call('HGET', P .. 'meta', 'audited') or 0)
  local block = next_block(floor(at / BLOCK))
  if not block then return end
  if block ~= floor(at / BLOCK) then at = block * BLOCK end
  local place = at % BLOCK
  local last = min(BLOCK, place + AUDITED) - 1
  local text = call('GETRANGE', P .. 'order:' .. block, place * 16, last * 16 + 15)
  local ids = {}
  for from = 1, #text, 16 do
    local id = string.sub(text, from, from + 15)
    if id ~= string.rep('\0', 16) then ids[#ids + 1] = id end
  end
  put_right(ids)
  call('HSET', P .. 'meta', 'audited', block * BLOCK + last + 1)
end
