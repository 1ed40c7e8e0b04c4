-- farewell: [owner] -> wall. It holds nothing any more: what it leased may be taken at once.

make_way()
call('ZADD', P .. 'gone', wall, args[3])
return { wall }
