-- KEYS: a function. ARGV: a term, the table that the function fills, or nothing for one that fills none any more.
-- From now on, no write of an earlier term moves a fence of the function.
local term = redis.call('HGET', KEYS[1], 'term') or '0'
if above(ARGV[1], term) then redis.call('HSET', KEYS[1], 'term', ARGV[1]) end
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], 'table') else redis.call('HSET', KEYS[1], 'table', ARGV[2]) end
return 1
