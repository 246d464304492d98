-- KEYS: the stream of a partition. ARGV: when the partition's fence was created, the entries to keep, the seconds to keep
-- them, the channel; then for each row its offset, its JSON, how many texts follow, and that many fields and values.
-- A row that isn't above the last one was appended before. Entries that belong to another fence are what is left from before
-- the store lost that fence. Answers how many rows are new, or -1 if the entries that are there belong to a later fence.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
  local held = '0'
  for at = 1, #last[2], 2 do
    if last[2][at] == '_fence' then held = last[2][at + 1] end
  end
  if above(held, ARGV[1]) then return -1 end
  if held ~= ARGV[1] then redis.call('DEL', KEYS[1]) end
end
local at, new = 5, 0
while ARGV[at] do
  local count = tonumber(ARGV[at + 2])
  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[at] .. '-1', '_fence', ARGV[1],
    unpack(ARGV, at + 3, at + 2 + count))
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
  else
    new = new + 1
    redis.pcall('PUBLISH', ARGV[4], ARGV[at + 1])
  end
  at = at + 3 + count
end
if new > 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return new
