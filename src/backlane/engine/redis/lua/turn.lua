-- turn: args: [settlement, ..], [claim, ..] ->
--   wall, lost, buried, resources (as settle answers), [claimed, ..] | false
-- Where resources are concerned nothing is claimed: their breakers have to hear first.

local lost, buried, resources = settle_all(args[3])
local claimed = false
if #resources == 0 then
  claimed = {}
  for i = 1, #args[4] do claimed[i] = claim(args[4][i]) end
end
ring(taken)
return { wall, lost, buried, resources, claimed }
