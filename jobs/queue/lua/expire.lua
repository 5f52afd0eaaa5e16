-- Settles waiting tasks whose deadline has passed as expired: without a worker nobody else would.
-- KEYS: task stream, sets
-- ARGV: group, ttl of an ended job (ms), position in the stream to begin at ('-' for the first waiting task)
-- Returns {number of expired images, position to go on from, '' at the end}.
local tasks, sets, group, ttl, from = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local page = 500
local prefix = string.match(tasks, '^(.*)tasks$')
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

if redis.call('EXISTS', tasks) == 0 then
  return {0, ''}
end
if from == '-' then
  for _, about in ipairs(redis.call('XINFO', 'GROUPS', tasks)) do
    for i = 1, #about, 2 do
      if about[i] == 'last-delivered-id' then
        from = '(' .. about[i + 1]
      end
    end
  end
end

local function expire(entry, job_id, index)
  local job = prefix .. 'job:' .. job_id
  local about = redis.call('HMGET', job, 'total', 'channel', 'done', 'failed')
  local more = redis.call('HGET', sets, entry) or 0
  redis.call('XDEL', tasks, entry)
  redis.call('HDEL', sets, entry)
  if not about[1] then
    return 0
  end
  local total, done, failed, expired = tonumber(about[1]), tonumber(about[3]), tonumber(about[4]), 0
  for image = index, index + more do
    local outcome = {schema_version = 1, index = image, reason = 'expired', detail = 'the deadline passed in the queue'}
    if redis.call('HSETNX', job, 'image:' .. image, 'failure ' .. cjson.encode(outcome)) == 1 then
      expired, done, failed = expired + 1, done + 1, failed + 1
      for channel in string.gmatch(about[2], '%S+') do
        redis.call('PUBLISH', channel, cjson.encode({
          schema_version = 1,
          job_id = job_id, index = image, done = done, failed = failed, total = total,
        }))
      end
    end
  end
  redis.call('HSET', job, 'done', done, 'failed', failed)
  if done == total then
    forget_after(job, ttl)
  end
  return expired
end

local expired, last = 0, ''
local waiting = redis.call('XRANGE', tasks, from, '+', 'COUNT', page)
for _, found in ipairs(waiting) do
  local entry, fields = found[1], found[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'task' then
      -- The times come first, and ids have no quotes: no prompt is taken for one.
      local deadline = tonumber(string.match(fields[i + 1], '^{"created":[%d.]+,"deadline":([%d.]+)') or '')
      if deadline and deadline < now then
        local readable, task = pcall(cjson.decode, fields[i + 1])
        if readable and type(task.job_id) == 'string' and type(task.index) == 'number' then
          expired = expired + expire(entry, task.job_id, task.index)
        end
      end
    end
  end
  last = '(' .. entry
end
return {expired, #waiting == page and last or ''}
