-- Sheets: the little that scripts do with what Python packed of a job.

-- The position behind a nil, text or bytes of MessagePack.
local function behind(text, at)
  local kind = string.byte(text, at)
  if kind == 0xc0 then return at + 1 end
  if kind >= 0xa0 and kind <= 0xbf then return at + 1 + kind - 0xa0 end
  if kind == 0xd9 or kind == 0xc4 then return at + 2 + string.byte(text, at + 1) end
  if kind == 0xda or kind == 0xc5 then return at + 3 + struct.unpack('>I2', text, at + 1) end
  return at + 5 + struct.unpack('>I4', text, at + 1)
end

-- The sheet of a job with the body and headers of another's: [task, body, headers | none, ..].
local function with_body(sheet, newer)
  local body = behind(newer, 2)
  local headers = behind(newer, body)
  local ends = string.byte(newer) > 0x92 and behind(newer, headers) - 1
  local its_body = behind(sheet, 2)
  local task, rest = string.sub(sheet, 2, its_body - 1), behind(sheet, its_body)
  local head = string.byte(sheet)
  if head > 0x92 then
    rest = string.sub(sheet, behind(sheet, rest))
  else
    head, rest = ends and 0x93 or 0x92, ''
  end
  local taken = string.sub(newer, body, ends or headers - 1)
  if head > 0x92 and not ends then taken = taken .. '\192' end
  return string.char(head) .. task .. taken .. rest
end
