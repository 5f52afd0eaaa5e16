-- Prelude of the scripts that can end a job: from then on its keys are kept for `ttl` milliseconds. Until then its
-- images are kept for as long as the job may still go on. Whoever is to be told of its end is put on a stream. Pictures
-- that calls brought are kept no longer than a job needs them; of one with a dead letter as long as the job, since it may be
-- replayed.
local most_webhooks, unsent_kept = 10000, 1000
-- A job of whose end somebody is to be told is known for these ms, until the last attempt is over. Its images are not.
local known_for_webhook = 2 * 3600 * 1000

-- Each caller has webhooks and dead letters of its own, so that none displaces those of others.
local function tell_of_end(of_model, job_id, caller, target)
  local webhooks = of_model .. 'webhooks:' .. caller
  if redis.call('XLEN', webhooks) >= most_webhooks then
    local reason = most_webhooks .. ' webhooks of its caller waited already'
    redis.call('SADD', of_model .. 'unsent-webhook-callers', caller)
    redis.call('XADD', of_model .. 'unsent-webhooks:' .. caller, 'MAXLEN', '~', unsent_kept, '*',
      'job', job_id, 'target', target, 'reason', reason)
    return
  end
  local entry = redis.call('XADD', webhooks, '*', 'job', job_id, 'target', target)
  redis.call('ZADD', of_model .. 'webhooks-due:' .. caller, string.match(entry, '^%d+'), '0 ' .. entry)
  redis.call('SADD', of_model .. 'webhook-callers', caller)
end

local function forget_input(job, field, input, ttl)
  redis.call('HDEL', job, field)
  if redis.call('EXISTS', input) == 0 then
    return
  end
  if redis.call('HEXISTS', job, 'dead_letter') == 1 then
    redis.call('HSET', input, 'dead_letter', 1)
  end
  if redis.call('HINCRBY', input, 'jobs', -1) < 1 then
    redis.call('PEXPIRE', input, redis.call('HEXISTS', input, 'dead_letter') == 1 and ttl or 0)
  end
end

local function forget_after(job, ttl)
  redis.call('PEXPIRE', job, ttl)
  local of_model, job_id = string.match(job, '^(.*)job:([^:]+)$')
  local images = of_model .. 'image:'
  local fields = redis.call('HGETALL', job)
  for i = 1, #fields, 2 do
    if fields[i] == 'idempotency' then
      redis.call('PEXPIRE', fields[i + 1], ttl)
    elseif string.find(fields[i], '^input:') then
      forget_input(job, fields[i], fields[i + 1], ttl)
    elseif fields[i] == 'webhook' then
      tell_of_end(of_model, job_id, redis.call('HGET', job, 'client') or '', fields[i + 1])
      redis.call('PEXPIRE', job, math.max(tonumber(ttl), known_for_webhook))
    elseif string.find(fields[i], '^image:') and string.find(fields[i + 1], '^result ') then
      local readable, result = pcall(cjson.decode, string.sub(fields[i + 1], 8))
      if readable and type(result) == 'table' and result.sha256 and result.format then
        redis.call('PEXPIRE', images .. result.sha256 .. '.' .. result.format, ttl)
      end
    end
  end
end

