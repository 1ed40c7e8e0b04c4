-- append: see admission.lua

return append()
