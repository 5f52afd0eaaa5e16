#!lua flags=allow-oom
-- Counts an attempt at a task that may have taken its worker down, before it begins.
-- KEYS: job hash
-- ARGV: index of the task's first image
-- Returns the number of attempts, this one included; 0 when the job is gone.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
return redis.call('HINCRBY', KEYS[1], 'attempts:' .. ARGV[1], 1)
