-- Prelude of the scripts that measure or use the pace of the workers, as an exponentially decaying count of images.
-- `throughput` (hash): `images` is that count at the time `at`, and `since` the time when counting began (Unix seconds).
-- After `pace_memory` seconds an image counts for 1/e.
local pace_memory = 30

local function count_throughput(throughput, made)
  local clock = redis.call('TIME')
  local now = clock[1] + clock[2] / 1e6
  local record = redis.call('HMGET', throughput, 'images', 'at', 'since')
  local recent = (record[1] or 0) * math.exp(((record[2] or now) - now) / pace_memory)
  local since = recent > 0.1 and record[3] or now
  redis.call('HSET', throughput, 'images', recent + made, 'at', string.format('%.3f', now), 'since', since)
  redis.call('EXPIRE', throughput, 20 * pace_memory)
end

-- Milliseconds that the workers need for `excess` images at their recent pace; 0 when it is unknown. `now`: seconds.
local function time_for(throughput, excess, now)
  local pace = redis.call('HMGET', throughput, 'images', 'at', 'since')
  if not pace[1] then
    return 0
  end
  local images = pace[1] * math.exp((pace[2] - now) / pace_memory)
  local weight = pace_memory * (1 - math.exp((pace[3] - now) / pace_memory))
  return math.ceil(1000 * excess * math.max(weight, 0.001) / images)
end

