-- KEYS: what the function has written of an entity, what a reader has kept of it. Answers the one that is there.
local written = redis.call('HGETALL', KEYS[1])
if #written > 0 then return written end
return redis.call('HGETALL', KEYS[2])
