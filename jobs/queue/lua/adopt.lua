-- Gives a job, whose model no worker serves any more, to the model of another worker, as long as it has no image.
-- KEYS: job hash
-- ARGV: hash of the model that it had, hash of the worker's
-- Returns whether it is a job of the worker's model then: 1 or 0.
local job, had, own = KEYS[1], ARGV[1], ARGV[2]
local model = redis.call('HGET', job, 'model_sha')
if model ~= had then
  return model == own and 1 or 0
end
local fields = redis.call('HGETALL', job)
for i = 1, #fields, 2 do
  if string.find(fields[i], '^image:') and string.find(fields[i + 1], '^result ') then
    return 0
  end
end
redis.call('HSET', job, 'model_sha', own)
return 1
