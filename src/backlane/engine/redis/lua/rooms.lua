-- Rooms: how many jobs of a resource may be claimed (the same as `room` in model/breaker.py).

local TRIAL_MS = 60000
local STANDS, SINCE, FOR, TRIPS, ROUND, PASSED, TRIALS = 1, 2, 3, 5, 8, 9, 10
local ROUNDS = { 1, 2, 4 }
local rooms = {} -- by number of a resource that is not closed: {left, breaker, given}
local down = call('HKEYS', P .. 'down')

-- Where all are closed, as nearly always, there is nothing to look after. (And each function
-- that is made takes its time, in every call.)
local function read_rooms() end
local function give() end
local function tell_rooms() return {} end
local function next_trial() return nil end
local function fits() return true end

if #down > 0 then
  local function left_ms(trial)
    local passed = wall - trial[2]
    return passed < 0 and 0 or max(0, TRIAL_MS - passed)
  end

  -- When there will be room: 0 is now, nil is not by itself.
  local function opens_in(breaker, left)
    if breaker[STANDS] == 'open' then
      if not breaker[FOR] then return nil end
      local passed = wall - breaker[SINCE]
      return passed < 0 and 0 or max(0, breaker[FOR] - passed)
    end
    if left > 0 then return 0 end
    local least
    for i = 1, #breaker[TRIALS] do
      local still = left_ms(breaker[TRIALS][i])
      if still > 0 then least = min(least or still, still) end
    end
    return least
  end

  local function room_of(breaker)
    if breaker[STANDS] == 'open' then return opens_in(breaker, 0) == 0 and ROUNDS[1] or 0 end
    local under_way = 0
    for i = 1, #breaker[TRIALS] do
      if left_ms(breaker[TRIALS][i]) > 0 then under_way = under_way + 1 end
    end
    return max(0, ROUNDS[breaker[ROUND] + 1] - breaker[PASSED] - under_way)
  end

  function read_rooms()
    rooms = {}
    for i = 1, #down do
      local text = call('HGET', P .. 'breakers', down[i])
      local is_read, breaker = pcall(cmsgpack.unpack, text)
      local is_whole, left = pcall(room_of, breaker)
      if is_read and is_whole and breaker[STANDS] ~= 'closed' then
        rooms[tonumber(down[i])] = { left = left, breaker = breaker, given = {} }
      else -- damaged: closed, as for `unpacked` in resource.py, for work must go on
        call('HDEL', P .. 'down', down[i])
        call('HDEL', P .. 'breakers', down[i])
      end
    end
  end

  function give(resource, id)
    local it = resource and rooms[resource]
    if it then
      it.left = it.left - 1
      it.given[#it.given + 1] = id
    end
  end

  local function to_hex(id)
    return (string.gsub(id, '.', function(byte) return string.format('%02x', string.byte(byte)) end))
  end

  -- Tells breakers of their trials (`tried` in model/breaker.py). Returns the resources of
  -- which it is the first one: [number, packed breaker].
  function tell_rooms()
    local turned = {}
    for number, it in pairs(rooms) do
      if #it.given > 0 then
        local breaker = it.breaker
        local is_first = breaker[STANDS] == 'open'
        local trials, ours = {}, {}
        for i = 1, #it.given do ours[to_hex(it.given[i])] = true end
        if is_first then
          breaker = { 'trying', wall, false, breaker[4], breaker[TRIPS], {}, 0, 0, 0, {} }
        end
        for i = 1, #breaker[TRIALS] do
          if not ours[breaker[TRIALS][i][1]] then trials[#trials + 1] = breaker[TRIALS][i] end
        end
        for i = 1, #it.given do trials[#trials + 1] = { to_hex(it.given[i]), wall } end
        while #trials > 16 do table.remove(trials, 1) end
        breaker[TRIALS] = trials
        it.breaker = breaker
        local text = cmsgpack.pack(breaker)
        call('HSET', P .. 'breakers', number, text)
        local its_sources = (is_first or room_of(breaker) > 0)
          and call('SMEMBERS', P .. 'sources:' .. number) or {}
        for i = 1, #its_sources do
          if call('EXISTS', P .. 'ready:' .. its_sources[i] .. ':' .. number) == 1 then
            rung_queues[tonumber(string.match(its_sources[i], '^%d+'))] = true
          end
        end
        if is_first then turned[#turned + 1] = { call('HGET', P .. 'resource_names', number), text } end
      end
    end
    return turned
  end

  -- Until what waits for a resource may be tried.
  function next_trial()
    local soonest
    for number, it in pairs(rooms) do
      local opens = opens_in(it.breaker, it.left)
      if opens and opens > 0 and (not soonest or opens < soonest) then
        local sources = call('SMEMBERS', P .. 'sources:' .. number)
        for i = 1, #sources do
          if call('EXISTS', P .. 'ready:' .. sources[i] .. ':' .. number) == 1 then
            soonest = opens
            break
          end
        end
      end
    end
    return soonest
  end

  -- Counts a job into the room that is left while choosing; rooms are given with leases.
  function fits(room, resource)
    local it = resource and rooms[resource]
    if not it then return true end
    room[resource] = (room[resource] or it.left) - 1
    return room[resource] >= 0
  end
end
