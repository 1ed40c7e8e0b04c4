-- claim: args: [claim, ..] (see `claim` in taking.lua) -> wall, [claimed, ..]

local claimed = {}
for i = 1, #args[3] do claimed[i] = claim(args[3][i]) end
ring(taken)
return { wall, claimed }
