-- breakers: [[number, ..] | [name, ..] | false: all] ->
--   wall, [number, name, breaker | nil, [what it has not heard yet, ..], ..]

local told = {}

local function tell(number, name)
  local at = #told
  told[at + 1], told[at + 2] = tonumber(number), name
  told[at + 3] = call('HGET', P .. 'breakers', number)
  told[at + 4] = call('LRANGE', P .. 'ended:' .. number, 0, -1)
end

if not args[3] then
  local known = call('HGETALL', P .. 'resources')
  for i = 1, #known, 2 do tell(known[i + 1], known[i]) end
else
  for _, one in ipairs(args[3]) do
    if type(one) == 'number' then
      local name = call('HGET', P .. 'resource_names', one)
      if name then tell(one, name) end
    else
      local number = call('HGET', P .. 'resources', one)
      if number then tell(number, one) end
    end
  end
end
return { wall, told }
