-- Writes to a job what it holds already: replicas that have this write have all that was written before it.
-- KEYS: job hash
-- Returns 1, or 0 for a job that is unknown, as after a failover to a replica that has not heard of it.
local total = redis.call('HGET', KEYS[1], 'total')
if not total then
  return 0
end
redis.call('HSET', KEYS[1], 'total', total)
return 1
