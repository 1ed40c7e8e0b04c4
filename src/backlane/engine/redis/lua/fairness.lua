-- Fairness: the places of a fair queue, by virtual time (the sums of memory/fairness.py).
--
--   flows:<queue>  hash 'g' .. group, or '' of those without one -> packed [F | false, the latest
--                  place it got, mean run time in us | false]
-- Of a queue: fair_ms (V) and fair_us, the mean of all.

local fair_works
local function fairness()
  if fair_works then return fair_works end
  local it, lanes = {}, {}
  fair_works = it

  local function lane_of(queue)
    local lane = lanes[queue]
    if not lane then
      local got = call('HMGET', P .. 'q:' .. queue, 'fair_ms', 'fair_us')
      lane = { v = tonumber(got[1] or nil), mean = tonumber(got[2] or nil), flows = {} }
      lanes[queue] = lane
    end
    return lane
  end

  local function flow_of(lane, queue, group)
    local field = group and 'g' .. group or ''
    local flow = lane.flows[field]
    if not flow then
      local text = call('HGET', P .. 'flows:' .. queue, field)
      flow = text and cmsgpack.unpack(text) or { false, 0, false }
      lane.flows[field] = flow
    end
    return flow
  end

  local function cost(lane, flow) return max(1, floor((flow[3] or lane.mean or 100000) / 1000)) end

  local function moved(mean, ran)
    if not mean then return 1000 * ran end
    return floor((4 * mean + 1000 * ran) / 5)
  end

  local function is_idle(queue)
    local got = call('HMGET', P .. 'q:' .. queue, 's2', 's4')
    local news = counts['q:' .. queue] or {}
    return (got[1] or 0) + (got[2] or 0) + (news.s2 or 0) + (news.s4 or 0) <= 0
  end

  local function touch(lane, flow)
    lane.is_changed = true
    if flow then flow.is_changed = true end
  end

  function it.place(row)
    local queue = row[QUEUE]
    local lane = lane_of(queue)
    local flow = flow_of(lane, queue, row[GROUP])
    if not lane.v or lane.v < wall and is_idle(queue) then lane.v = max(lane.v or 0, wall) end
    local start = max(lane.v, flow[1] or 0)
    flow[1] = start + cost(lane, flow)
    flow[2] = max(flow[2], start)
    touch(lane, flow)
    return flow[2]
  end

  function it.take(row)
    local lane = lane_of(row[QUEUE])
    lane.v = max(lane.v or 0, row[EXTRA][E_VIRTUAL])
    touch(lane)
  end

  function it.end_attempt(row, ran)
    local lane = lane_of(row[QUEUE])
    local flow = flow_of(lane, row[QUEUE], row[GROUP])
    if flow[1] then flow[1] = flow[1] + max(1, ran) - cost(lane, flow) end
    flow[3] = moved(flow[3], ran)
    lane.mean = moved(lane.mean, ran)
    touch(lane, flow)
  end

  -- Of a virtual place no window of scores tells when it was due: when its rank rises is kept.
  function it.count_ageing(id, row, by)
    if by < 0 then
      push(zrems, 'aging', member(id, row))
    elseif row[RANK] < 9 then
      local levels = max(0, row[RANK] - row[PRIORITY]) + 1
      push(zadds, 'aging', row[PLACE] + levels * 300000, member(id, row))
    end
  end

  before_flush[#before_flush + 1] = function()
    for queue, lane in pairs(lanes) do
      if lane.is_changed then
        lane.is_changed = nil
        if lane.v then push(hsets, 'q:' .. queue, 'fair_ms', string.format('%.0f', lane.v)) end
        if lane.mean then push(hsets, 'q:' .. queue, 'fair_us', string.format('%.0f', lane.mean)) end
        for field, flow in pairs(lane.flows) do
          if flow.is_changed then
            push(hsets, 'flows:' .. queue, field, cmsgpack.pack({ flow[1], flow[2], flow[3] }))
            flow.is_changed = nil
          end
        end
      end
    end
  end
  return it
end
