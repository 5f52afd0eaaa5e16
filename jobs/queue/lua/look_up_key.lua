-- Looks up the job that an idempotency key names. A key without a job may be given up, so that no call that is under
-- way uses it for this model: it then goes to another one.
-- KEYS: idempotency record
-- ARGV: body fingerprint, ms for which a key without a job is given up ('' to leave it), 1 to give up an unused one too
-- Returns {outcome, job id} as job_of_key does; 'free' for a key that was given up.
local outcome, job_id = job_of_key(KEYS[1], ARGV[1])
if ARGV[2] ~= '' and (outcome == 'free' or outcome == 'moved' or outcome == 'unused' and ARGV[3] == '1') then
  redis.call('SET', KEYS[1], 'moved', 'PX', ARGV[2])
  outcome = 'free'
end
return {outcome, job_id}
