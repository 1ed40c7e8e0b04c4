-- known: [random bytes] -> wall, the secret of this store, the newest id that was pruned

local secret = call('HGET', P .. 'meta', 'secret')
if not secret then -- whoever asks first makes it
  make_way()
  secret = args[3]
  call('HSET', P .. 'meta', 'secret', secret)
end
return { wall, secret, tonumber(call('HGET', P .. 'meta', 'forgotten_ms') or -1) }
