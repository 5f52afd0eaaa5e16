-- Settles the images of one task, once: results or failures, bytes, acknowledgement and events, in one step.
-- KEYS: task stream, sets, job hash, throughput record, then for results the key of each image that is kept in
--       Redis, for a dead letter their stream
-- ARGV: group, entry id, 'result'|'failure', ttl of an ended job (ms), of one that goes on (ms),
--       task (JSON, of a failure), hash of the model that made a result, then for each image its index, outcome (JSON)
--       and bytes
-- Returns {images settled now, all images of the job if it is complete with them, else 0, the idempotency key's name for
-- all models if it is complete and had a key, else ''}; {0, 0, ''} when they had been settled before or their job is
-- gone; {-1, 0, ''}, without any effect, for results of another model than the job's.
local tasks, sets, job, throughput = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, entry, kind, ttl, longest, task = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local model_sha = ARGV[7]
local first_store, first_image = 5, 8
local images = (#ARGV - first_image + 1) / 3

local dead_letters_kept = 1000

local job_model = kind == 'result' and redis.call('HGET', job, 'model_sha')
if job_model and job_model ~= model_sha then
  return {-1, 0, ''}
end

local settled = 0
if redis.call('EXISTS', job) == 1 then
  local about = redis.call('HMGET', job, 'channel', 'total', 'client')
  local of_model, job_id = string.match(job, '^(.*)job:([^:]+)$')
  local usage, client = of_model .. 'usage', about[3] or '' -- what each client has had of the model
  for i = 0, images - 1 do
    local index, outcome, bytes = unpack(ARGV, first_image + 3 * i, first_image + 3 * i + 2)
    if redis.call('HEXISTS', job, 'image:' .. index) == 0 then
      -- First write of the script. When memory is full, Redis refuses it for a result: then nothing has changed.
      redis.call('HSET', job, 'image:' .. index, kind .. ' ' .. outcome)
      settled = settled + 1
      if kind == 'result' and KEYS[first_store] then
        redis.call('SET', KEYS[first_store + i], bytes, 'PX', longest)
      end
      if kind == 'result' then
        redis.call('HINCRBY', usage, 'images:' .. client, 1)
        local work_s = string.match(outcome, '"work_s":([%d.e+-]+)')
        if work_s then
          redis.call('HINCRBYFLOAT', usage, 'work_s:' .. client, work_s)
        end
      end
      local done = redis.call('HINCRBY', job, 'done', 1)
      local failed = redis.call('HINCRBY', job, 'failed', kind == 'failure' and 1 or 0)
      for channel in string.gmatch(about[1], '%S+') do
        redis.call('PUBLISH', channel, cjson.encode({
          schema_version = 1,
          job_id = job_id, index = tonumber(index), done = done, failed = failed, total = tonumber(about[2]),
        }))
      end
    end
  end
end
local completed = 0
if settled > 0 then
  if kind == 'result' then
    redis.call('HSET', job, 'model_sha', model_sha)
  elseif KEYS[first_store] then
    redis.call('HSET', job, 'dead_letter', 1)
  end
  local counts = redis.call('HMGET', job, 'done', 'total')
  if counts[1] == counts[2] then
    completed = tonumber(counts[2])
    forget_after(job, ttl)
  else
    redis.call('PEXPIRE', job, longest)
  end
  if kind == 'result' then
    count_throughput(throughput, settled)
  elseif KEYS[first_store] then
    local failure = ARGV[first_image + 1]
    redis.call('XADD', KEYS[first_store], 'MAXLEN', '~', dead_letters_kept, '*', 'task', task, 'failure', failure)
  end
end
local function remove(id)
  redis.call('XACK', tasks, group, id)
  redis.call('XDEL', tasks, id)
  redis.call('HDEL', sets, id)
end
remove(entry)
-- If another worker requeued the task in the meantime, it has a new entry, which is not needed any more.
local current = settled > 0 and redis.call('HGET', job, 'entry:' .. ARGV[first_image])
if current and current ~= entry then
  remove(current)
end
return {settled, completed, completed > 0 and redis.call('HGET', job, 'key') or ''}
