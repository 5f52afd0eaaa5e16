-- Settles one image, once: its result or failure, its bytes, the acknowledgement and the news, in one step.
-- KEYS: task stream, job hash, and for a result the image key
-- ARGV: group, entry id, image index, 'result'|'failure', outcome (JSON), ttl (ms), image bytes
-- Returns 1, or 0 when the image had been settled before or its job is gone.
local tasks, job, image = KEYS[1], KEYS[2], KEYS[3]
local group, entry, index, kind, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]

local settled = 0
if redis.call('EXISTS', job) == 1 then
  -- First write of the script, and one that Redis refuses when memory is full: then nothing has happened yet.
  settled = redis.call('HSETNX', job, 'image:' .. index, kind .. ' ' .. ARGV[5])
end
if settled == 1 then
  if image then
    redis.call('SET', image, ARGV[7], 'PX', ttl)
  end
  local done = redis.call('HINCRBY', job, 'done', 1)
  local failed = redis.call('HINCRBY', job, 'failed', kind == 'failure' and 1 or 0)
  redis.call('PEXPIRE', job, ttl)
  local about = redis.call('HMGET', job, 'channel', 'total')
  local job_id = string.match(job, '([^:]+)$')
  for channel in string.gmatch(about[1], '%S+') do
    redis.call('PUBLISH', channel, cjson.encode({
      job_id = job_id, index = tonumber(index), done = done, failed = failed, total = tonumber(about[2]),
    }))
  end
end
redis.call('XACK', tasks, group, entry)
redis.call('XDEL', tasks, entry)
return settled
