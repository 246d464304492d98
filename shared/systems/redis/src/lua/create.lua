-- KEYS: the function, a fence of it. ARGV: term, next offset, fence, the fence's name among those of the function.
-- Creates the fence if there is none. Answers the fence that is there then, or nothing if the term has ended.
local term = redis.call('HGET', KEYS[1], 'term') or '0'
if above(term, ARGV[1]) then return false end
if redis.call('EXISTS', KEYS[2]) == 0 then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[2], 'next_offset', ARGV[2], 'term', ARGV[1], 'fence', ARGV[3],
    'created', now[1] .. string.format('%06d', tonumber(now[2])))
end
redis.call('HSET', KEYS[1], 'term', ARGV[1], ARGV[4], '')
return redis.call('HGET', KEYS[2], 'fence')
