-- KEYS: the function, a fence of it. ARGV: term, the expected next offset, the new one, the new fence, the fence's name, when
-- the fence was created. Moves the fence if it is where it is expected, in a term that hasn't ended. Never creates it. One that
-- was created since is another one, also at the same offset: the rows may have been lost with the fence of before.
local held = redis.call('HMGET', KEYS[2], 'next_offset', 'term', 'created')
if not held[1] or (held[3] or '0') ~= ARGV[6] then return {'gone'} end
local term = redis.call('HGET', KEYS[1], 'term') or '0'
if above(term, ARGV[1]) or above(held[2] or '0', ARGV[1]) then return {'ended'} end
if held[1] ~= ARGV[2] then return {'at', held[1], ''} end
redis.call('HSET', KEYS[2], 'next_offset', ARGV[3], 'term', ARGV[1], 'fence', ARGV[4])
redis.call('HSET', KEYS[1], 'term', ARGV[1], ARGV[5], '')
return {'moved'}
