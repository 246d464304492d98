-- KEYS: the function, a fence of it. ARGV: term. Answers where the fence is and when it was created; nothing without one.
local held = redis.call('HMGET', KEYS[2], 'next_offset', 'term', 'created')
if not held[1] then return {'gone'} end
local term = redis.call('HGET', KEYS[1], 'term') or '0'
if above(term, ARGV[1]) or above(held[2] or '0', ARGV[1]) then return {'ended'} end
return {'at', held[1], held[3] or '0'}
