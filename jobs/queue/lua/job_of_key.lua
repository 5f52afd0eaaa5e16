-- Prelude of the scripts that look up the job which an idempotency key names.
-- Returns an outcome and the job's id: 'running', 'finished', 'mismatch' for a call with another body, 'moved' when the
-- key was given to another model, 'free' when the earlier job failed or is forgotten, so that a retry can succeed, and
-- 'unused' when there has been none, or it is just being admitted.
local function job_of_key(record, fingerprint)
  local used = redis.call('GET', record)
  if not used then
    return 'unused', ''
  end
  if used == 'moved' then
    return 'moved', ''
  end
  local body, earlier = string.match(used, '^(%S+) (%S+)$')
  local job = string.match(record, '^(.*)idempotency:[^:]+$') .. 'job:' .. (earlier or '')
  local state = redis.call('HMGET', job, 'total', 'done', 'failed')
  if state[1] and body ~= fingerprint then
    return 'mismatch', earlier
  elseif state[1] and state[2] ~= state[1] then
    return 'running', earlier
  elseif state[1] and state[3] == '0' then
    return 'finished', earlier
  end
  return 'free', ''
end

