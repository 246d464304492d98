-- KEYS: a table. ARGV: the record that must be there ('' for none), the new one ('' for none), the columns ('' for as they are).
if (redis.call('HGET', KEYS[1], 'record') or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], 'record') else redis.call('HSET', KEYS[1], 'record', ARGV[2]) end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'columns', ARGV[3]) end
return 1
