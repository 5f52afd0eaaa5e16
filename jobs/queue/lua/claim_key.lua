-- Names the model whose job an idempotency key belongs to: the caller's, if the key names none yet.
-- KEYS: the key's name for all models
-- ARGV: model, ttl (ms)
-- Returns the name of the model.
local named = redis.call('GET', KEYS[1])
if not named then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return named or ARGV[1]
