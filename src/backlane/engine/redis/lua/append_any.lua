-- append: see append.lua

return append()
