-- Gives an idempotency key to another model, if it still belongs to the one that the caller saw.
-- KEYS: the key's name for all models
-- ARGV: the model it belonged to, the model it goes to, ttl (ms)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if string.match(redis.call('GET', KEYS[1]) or '', '^%S+') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2] .. string.format(' %.0f', now), 'PX', ARGV[3])
end
