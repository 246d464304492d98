-- KEYS: a table. Notes that it has had rows, if it is there.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('HSETNX', KEYS[1], 'written', '1')
