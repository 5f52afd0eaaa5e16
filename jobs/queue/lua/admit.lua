-- Admits a whole job or nothing.
-- KEYS: task stream, job hash, idempotency record, rate record, throughput record, sets
-- ARGV: group, bound (images), ttl (ms), seconds until the deadline ('' without one), event channel, body fingerprint ('' without idempotency),
--       images per minute (0 without a limit), target of the webhook (JSON, '' without one), then for each task the number of its images and itself (JSON, without times)
-- Returns {outcome, images queued after the call, job id, images the rate still allows, ms until the job would fit,
-- time of the job's creation}.
local tasks, job, record, rate_record, throughput, sets = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, bound, ttl, fingerprint, per_minute = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[6], tonumber(ARGV[7])
local first_task = 9
local images = 0
for i = first_task, #ARGV, 2 do
  images = images + ARGV[i]
end
local job_id = string.match(job, '([^:]+)$')
local minute = 60000
local share_for_jobs = 0.9

local first_of_model = redis.call('EXISTS', tasks) == 0
local queued = first_of_model and 0 or count_images(tasks, sets, group)

-- The rate is kept as the time at which all images so far would be due if they came evenly (GCRA).
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local due = math.max(per_minute > 0 and tonumber(redis.call('GET', rate_record) or 0) or 0, now)

-- Whether the memory that Redis may use is nearly used up: what is left is for the results of what was admitted.
local function memory_is_short()
  local memory = redis.call('INFO', 'memory')
  local limit = tonumber(string.match(memory, '\nmaxmemory:(%d+)'))
  return limit > 0 and tonumber(string.match(memory, '\nused_memory:(%d+)')) > share_for_jobs * limit
end

local function answer(outcome, id)
  local interval = per_minute > 0 and minute / per_minute or 0
  local remaining = per_minute > 0 and math.floor((minute - (due - now)) / interval + 0.001) or 0
  local wait = math.max(0, math.ceil(due + images * interval - minute - now))
  if outcome == 'full' then
    wait = time_for(throughput, queued + images - bound, now / 1000)
  end
  return {outcome, queued, id, remaining, wait, redis.call('HGET', job, 'created') or ''}
end

-- A client that lost our answer sends the call again: the job must not be doubled.
if redis.call('EXISTS', job) == 1 then
  return answer('admitted', job_id)
end
if fingerprint ~= '' then
  local used = redis.call('GET', record)
  if used then
    local body, earlier = string.match(used, '^(%S+) (%S+)$')
    local state = redis.call('HMGET', string.sub(job, 1, #job - #job_id) .. (earlier or ''), 'total', 'done', 'failed')
    if state[1] and body ~= fingerprint then
      return answer('mismatch', earlier)
    elseif state[1] and state[2] ~= state[1] then
      return answer('running', earlier)
    elseif state[1] and state[3] == '0' then
      return answer('finished', earlier)
    end
    -- The earlier job failed or is forgotten: the key is free again, so that a retry can succeed.
  end
end
if memory_is_short() then
  return answer('store-full', job_id)
end
if queued + images > bound then
  return answer('full', job_id)
end
if per_minute > 0 then
  local after = due + images * minute / per_minute
  if after - minute > now + 0.5 then
    return answer('limited', job_id)
  end
  due = after
end

if first_of_model then
  redis.call('XGROUP', 'CREATE', tasks, group, '0', 'MKSTREAM')
end
local created = string.format('%.6f', now / 1000)
local times = '{"created":' .. created .. ','
if ARGV[4] ~= '' then
  times = times .. string.format('"deadline":%.6f,', now / 1000 + ARGV[4])
end
redis.call('HSET', job, 'created', created, 'total', images, 'done', 0, 'failed', 0, 'channel', ARGV[5])
redis.call('PEXPIRE', job, ttl)
if ARGV[8] ~= '' then
  redis.call('HSET', job, 'webhook', ARGV[8])
end
local index = 0
for i = first_task, #ARGV, 2 do
  local entry = redis.call('XADD', tasks, '*', 'task', times .. string.sub(ARGV[i + 1], 2))
  redis.call('HSET', job, 'entry:' .. index, entry)
  if tonumber(ARGV[i]) > 1 then
    redis.call('HSET', sets, entry, ARGV[i] - 1)
  end
  index = index + ARGV[i]
end
if fingerprint ~= '' then
  redis.call('SET', record, fingerprint .. ' ' .. job_id, 'PX', ttl)
  redis.call('HSET', job, 'idempotency', record)
end
if per_minute > 0 then
  redis.call('SET', rate_record, string.format('%.3f', due), 'PX', 2 * minute)
end
queued = queued + images
return answer('admitted', job_id)
