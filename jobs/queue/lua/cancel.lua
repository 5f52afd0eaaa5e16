-- Cancels every image of a job that is not settled, waiting or running, in one step.
-- KEYS: task stream, sets, job hash
-- ARGV: group, job id, reason, detail, ttl (ms), channel that workers listen on
-- Returns {number of cancelled images, or -1 when the job is unknown; the idempotency key's name for all models, if the
-- job has ended with them and had a key, else ''}.
local tasks, sets, job = KEYS[1], KEYS[2], KEYS[3]
local group, job_id, reason, detail, ttl, workers = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local about = redis.call('HMGET', job, 'total', 'channel', 'done', 'failed')
if not about[1] then
  return {-1, ''}
end
local total, done, failed = tonumber(about[1]), tonumber(about[3]), tonumber(about[4])
local cancelled = 0
for index = 0, total - 1 do
  local failure = 'failure ' .. cjson.encode({schema_version = 1, index = index, reason = reason, detail = detail})
  if redis.call('HSETNX', job, 'image:' .. index, failure) == 1 then
    local entry = redis.call('HGET', job, 'entry:' .. index)
    if entry then -- else it is one of a set, which has its entry at its first image
      redis.call('XACK', tasks, group, entry)
      redis.call('XDEL', tasks, entry)
      redis.call('HDEL', sets, entry)
    end
    cancelled, done, failed = cancelled + 1, done + 1, failed + 1
    for channel in string.gmatch(about[2], '%S+') do
      redis.call('PUBLISH', channel, cjson.encode({
        schema_version = 1,
        job_id = job_id, index = index, done = done, failed = failed, total = total,
      }))
    end
  end
end
if cancelled > 0 then
  redis.call('HSET', job, 'done', done, 'failed', failed)
  forget_after(job, ttl)
  redis.call('PUBLISH', workers, job_id)
end
return {cancelled, cancelled > 0 and redis.call('HGET', job, 'key') or ''}
