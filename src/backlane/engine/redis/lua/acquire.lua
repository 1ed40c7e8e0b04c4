-- acquire: [use, its limit, declared | false, holder, lease ms] -> wall, 1 | 0, wait ms | nil

local use, name, declared, holder, lease_ms = args[3], args[4], args[5], args[6], args[7]
make_way()
if declared and call('HEXISTS', P .. 'limits', name) == 0 then set_limit(name, declared) end
local it = gating()
local gate, held = it.gate_of(use), struct.pack('>I2', #use) .. use .. holder
local given, wait = 1, false
flush() -- what ended by time is gone
if not call('ZSCORE', P .. 'acquired', held) then
  local is_own = use == 'l' .. name .. '\0'
  if it.room(gate, is_own and running_under(name) or 0) <= 0 then
    given = 0
    wait = it.token_in_ms(gate)
    wait = wait > 0 and wait
  else
    it.spend(gate)
    gate.acquired = gate.acquired + 1
    if not gate.is_turn then add('limited', 1, 'r' .. gate.limit) end
    it.touch(gate)
  end
end
if given == 1 then push(zadds, 'acquired', boot + lease_ms, held) end
flush()
ring()
return { wall, given, wait }
