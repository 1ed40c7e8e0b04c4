-- all_latest: [] -> wall, [task, id, ended ms, result, ..]

local told, kept = {}, call('HGETALL', P .. 'latest')
for i = 1, #kept, 2 do
  local text, at = kept[i + 1], #told
  told[at + 1], told[at + 2] = kept[i], string.sub(text, 1, 16)
  told[at + 3], told[at + 4] = struct.unpack('>I6', text, 17), string.sub(text, 23)
end
return { wall, told }
