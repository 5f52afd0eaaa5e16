-- Admits a whole job or nothing.
-- KEYS: task stream, job hash
-- ARGV: group, bound (images), ttl (ms), created, event channel, then one task (JSON) per image
-- Returns {admitted 0|1, images queued after the call}.
local tasks, job = KEYS[1], KEYS[2]
local group, bound, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local images = #ARGV - 5

if redis.call('EXISTS', tasks) == 0 then
  redis.call('XGROUP', 'CREATE', tasks, group, '0', 'MKSTREAM')
end
local queued = redis.call('XLEN', tasks) - redis.call('XPENDING', tasks, group)[1]
-- A client that lost our answer sends the call again: the job must not be doubled.
if redis.call('EXISTS', job) == 1 then
  return {1, queued}
end
if queued + images > bound then
  return {0, queued}
end
redis.call('HSET', job, 'created', ARGV[4], 'total', images, 'done', 0, 'failed', 0, 'channel', ARGV[5])
redis.call('PEXPIRE', job, ttl)
for i = 6, #ARGV do
  redis.call('HSET', job, 'entry:' .. (i - 6), redis.call('XADD', tasks, '*', 'task', ARGV[i]))
end
return {1, queued + images}
