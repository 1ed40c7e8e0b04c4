-- sealed: [] -> wall, the seal as it is kept | nil

return { wall, call('HGET', P .. 'meta', 'seal') }
