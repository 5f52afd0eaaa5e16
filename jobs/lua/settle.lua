-- Settles one image, once: its result or failure, its bytes, the acknowledgement and the news, in one step.
-- KEYS: task stream, job hash, throughput record, and for a result the image key, for a dead letter their stream
-- ARGV: group, entry id, image index, 'result'|'failure', outcome (JSON), ttl (ms), image bytes or dead task (JSON)
-- Returns 1, or 0 when the image had been settled before or its job is gone.
local tasks, job, throughput, store = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, entry, index, kind, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]

local dead_letters_kept = 1000

-- Images of late, the older ones counting for ever less: after `memory` seconds for 1/e. See admit.lua.
local function count_throughput()
  local memory = 30
  local clock = redis.call('TIME')
  local now = clock[1] + clock[2] / 1e6
  local record = redis.call('HMGET', throughput, 'images', 'at', 'since')
  local images = (record[1] or 0) * math.exp(((record[2] or now) - now) / memory)
  local since = images > 0.1 and record[3] or now
  redis.call('HSET', throughput, 'images', images + 1, 'at', string.format('%.3f', now), 'since', since)
  redis.call('EXPIRE', throughput, 20 * memory)
end

local settled = 0
if redis.call('EXISTS', job) == 1 then
  -- First write of the script, and one that Redis refuses when memory is full: then nothing has happened yet.
  settled = redis.call('HSETNX', job, 'image:' .. index, kind .. ' ' .. ARGV[5])
end
if settled == 1 then
  if kind == 'result' then
    redis.call('SET', store, ARGV[7], 'PX', ttl)
    count_throughput()
  elseif store then
    redis.call('XADD', store, 'MAXLEN', '~', dead_letters_kept, '*', 'task', ARGV[7], 'failure', ARGV[5])
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
