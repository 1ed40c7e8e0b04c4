-- dump_repeats: [cursor of HSCAN, number] -> wall, next cursor ("0": that was all),
--   [field, value, ..]: see `repeats` in model.lua

local got = call('HSCAN', P .. 'repeats', args[3], 'COUNT', args[4])
return { wall, got[1], got[2] }
