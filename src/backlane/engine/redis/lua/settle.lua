-- settle: args: [settlement, ..] (see settling.lua) ->
--   wall, [id lost, ..], [id buried, ..], [number of a resource that is concerned, ..]

local lost, buried, resources = settle_all(args[3])
ring()
return { wall, lost, buried, resources }
