-- Admits a whole job or nothing; or only says what would become of it, and writes nothing.
-- KEYS: task stream, job hash, idempotency record, throughput record, sets, then one for each picture that the job needs
-- ARGV: group, bound (images), ttl (ms), seconds until the deadline ('' without one), event channel,
--       body fingerprint and the key's name for all models ('' without idempotency), sha256 of the model ('' for any),
--       hash of the client ('' without keys), target of the webhook (JSON, '' without one), 1 to be told only ('' to
--       be admitted), then the file of each picture, then for each task the number of its images and itself (JSON, without times)
-- Returns {outcome, images queued after the call, job id, ms until the job would fit, time of the job's creation}.
local tasks, job, record, throughput, sets = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, bound, ttl, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[5]
local fingerprint, key, model_sha, client = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local webhook, only_told = ARGV[10], ARGV[11] ~= ''
local first_input, first_file = 6, 12
local first_task = first_file + #KEYS - first_input + 1
local images = 0
for i = first_task, #ARGV, 2 do
  images = images + ARGV[i]
end
local job_id = string.match(job, '([^:]+)$')
local share_for_jobs = 0.9

local first_of_model = redis.call('EXISTS', tasks) == 0
local queued = first_of_model and 0 or count_images(tasks, sets, group)

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

-- Whether the memory that Redis may use is nearly used up: what is left is for the results of what was admitted.
local function memory_is_short()
  local memory = redis.call('INFO', 'memory')
  local limit = tonumber(string.match(memory, '\nmaxmemory:(%d+)'))
  return limit > 0 and tonumber(string.match(memory, '\nused_memory:(%d+)')) > share_for_jobs * limit
end

local function answer(outcome, id)
  local wait = outcome == 'full' and time_for(throughput, queued + images - bound, now) or 0
  return {outcome, queued, id, wait, redis.call('HGET', job, 'created') or ''}
end

-- A client that lost our answer sends the call again: the job must not be doubled.
if redis.call('EXISTS', job) == 1 then
  return answer('admitted', job_id)
end
if fingerprint ~= '' then
  local outcome, earlier = job_of_key(record, fingerprint)
  if outcome ~= 'free' and outcome ~= 'unused' then
    return answer(outcome, earlier)
  end
end
if memory_is_short() then
  return answer('store-full', job_id)
end
if queued + images > bound then
  return answer('full', job_id)
end
if only_told then
  return answer('admitted', job_id)
end

if first_of_model then
  redis.call('XGROUP', 'CREATE', tasks, group, '0', 'MKSTREAM')
end
local created = string.format('%.6f', now)
local times = '{"created":' .. created .. ','
if ARGV[4] ~= '' then
  times = times .. string.format('"deadline":%.6f,', now + ARGV[4])
end
redis.call('HSET', job, 'created', created, 'total', images, 'done', 0, 'failed', 0, 'channel', channel)
redis.call('PEXPIRE', job, ttl)
if model_sha ~= '' then
  redis.call('HSET', job, 'model_sha', model_sha)
end
if client ~= '' then
  redis.call('HSET', job, 'client', client)
end
if webhook ~= '' then
  redis.call('HSET', job, 'webhook', webhook)
end
for i = first_input, #KEYS do
  local life = redis.call('PTTL', KEYS[i])
  redis.call('HSET', KEYS[i], 'file', ARGV[first_file + i - first_input])
  redis.call('HINCRBY', KEYS[i], 'jobs', 1)
  redis.call('PEXPIRE', KEYS[i], math.max(life, tonumber(ttl)))
  redis.call('HSET', job, 'input:' .. i, KEYS[i])
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
  redis.call('HSET', job, 'idempotency', record, 'key', key)
end
queued = queued + images
return answer('admitted', job_id)
