-- Names the model whose job an idempotency key belongs to: the caller's, if the key names none yet.
-- KEYS: the key's name for all models
-- ARGV: model, ttl (ms)
-- Returns {name of the model, ms since it was named}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local model, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)$')
if not model then
  redis.call('SET', KEYS[1], ARGV[1] .. string.format(' %.0f', now), 'PX', ARGV[2])
  return {ARGV[1], 0}
end
return {model, now - since}
