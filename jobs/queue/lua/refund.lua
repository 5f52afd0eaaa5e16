-- Takes back the charge for a job that was not admitted.
-- KEYS: the client's record (hash)
-- ARGV: as those of the charge
local record = KEYS[1]
local minute = 60000
for i = 2, #ARGV, 3 do
  local due = redis.call('HGET', record, ARGV[i])
  if due then
    redis.call('HSET', record, ARGV[i], string.format('%.3f', due - ARGV[i + 1] * minute / ARGV[i + 2]))
  end
end
if redis.call('HGET', record, 'job') == ARGV[1] then
  redis.call('HDEL', record, 'job')
end
