-- KEYS: the hash of an entity. ARGV: generation, offset, term, then fields and values of the whole row.
-- Replaces the row that is there, unless that one is newer. At one position, the row of the later term stays.
local held = redis.call('HMGET', KEYS[1], '_generation', '_offset', '_term')
if held[1] and held[2] then
  if above(held[1], ARGV[1]) then return 0 end
  if held[1] == ARGV[1] then
    if above(held[2], ARGV[2]) then return 0 end
    if held[2] == ARGV[2] and not above(ARGV[3], held[3] or '0') then return 0 end
  end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '_generation', ARGV[1], '_offset', ARGV[2], '_term', ARGV[3], unpack(ARGV, 4))
return 1
