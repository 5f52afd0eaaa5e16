-- Looks up the job that an idempotency key names. A free key may be given up, so that no call that is under way uses it
-- for this model: it then belongs to another one.
-- KEYS: idempotency record
-- ARGV: body fingerprint, ms for which a free key is given up ('' to leave it)
-- Returns {outcome, job id} as job_of_key does.
local outcome, job_id = job_of_key(KEYS[1], ARGV[1])
if outcome == 'moved' or outcome == 'free' and ARGV[2] ~= '' then
  if ARGV[2] ~= '' then
    redis.call('SET', KEYS[1], 'moved', 'PX', ARGV[2])
    outcome = 'free'
  end
end
return {outcome, job_id}
