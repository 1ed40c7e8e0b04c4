-- regulate: [name, declared | false, tuned | false] -> wall, what `tell_limit` tells | false
-- Without a declared one it is tuned.

local name, declared, tuned = args[3], args[4], args[5]
make_way()
if declared then
  declare_limit(name, declared)
else
  local both = both_of(name)
  if not both and not queue_of_limit(name) then return { wall, false } end
  set_limit(name, both and both[1] or { false, false, 1, 0, 0, false }, tuned)
end
flush()
ring(nil, true)
return { wall, tell_limit(name) }
