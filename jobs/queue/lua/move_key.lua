-- Gives an idempotency key to another model, if it still belongs to the one that the caller saw.
-- KEYS: the key's name for all models
-- ARGV: the model it belonged to, the model it goes to, ttl (ms)
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
