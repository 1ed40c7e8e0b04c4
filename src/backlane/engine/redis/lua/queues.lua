-- Queues as they are: what list_queues, tune and measure answer.

-- The member next in line of a queue and its place, of all its ready sets that are not
-- withheld; nil, nil if nothing is. `down` is the set of resources that are not closed.
local function head(queue, down)
  local best, best_score
  local function look(key)
    local got = call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')
    if got[1] then
      local score = tonumber(got[2])
      if not best or score < best_score or (score == best_score and got[1] < best) then
        best, best_score = got[1], score
      end
    end
  end
  local res = line(queue).res or {}
  for lane = 0, 1 do
    local key = 'ready:' .. queue .. ':' .. lane
    look(key)
    for i = 1, #res do
      if not down[tostring(res[i])] then look(key .. ':' .. res[i]) end
    end
  end
  if not best then return nil end
  local id = id_of(best)
  read_rows({ id })
  return rows[id] and rows[id][PLACE] or best_score % LEVEL -- a place may be virtual
end

local function down_resources()
  local found, names_of = {}, call('HKEYS', P .. 'down')
  for i = 1, #names_of do found[names_of[i]] = true end
  return found
end

-- How many wait for resources that are not closed, by the rank they wait at: [rank, number, ..].
local function withheld(queue, down)
  local found, res = {}, line(queue).res or {}
  for i = 1, #res do
    if down[tostring(res[i])] then
      for lane = 0, 1 do
        local key = P .. 'ready:' .. queue .. ':' .. lane .. ':' .. res[i]
        if call('EXISTS', key) == 1 then
          for rank = 0, 9 do
            local low = (9 - rank) * LEVEL
            local number = call('ZCOUNT', key, low, '(' .. (low + LEVEL))
            if number > 0 then
              found[#found + 1], found[#found + 2] = rank, number
            end
          end
        end
      end
    end
  end
  return found
end

-- All that is told of a queue: [[field, value, ..], how long the next has been due | nil].
local function tell(queue, down)
  local place = head(queue, down)
  return { call('HGETALL', P .. 'q:' .. queue), place and max(0, wall - place) or false }
end
