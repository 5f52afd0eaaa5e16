-- Charges a client for a job, or for nothing when that would be over one of its rates. A job is charged for once.
-- Without a job nothing is charged.
-- Each rate is kept as the time at which all its units so far would be due if they came evenly (GCRA).
-- KEYS: the client's record (hash)
-- ARGV: job id ('' for none), then for each rate its name, the job's units, and the units a minute
-- Returns {name of the rate that the job is over or '', ms until it would fit, units that this rate still allows}.
local record, job_id = KEYS[1], ARGV[1]
local minute = 60000
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000

if redis.call('HGET', record, 'job') == job_id then
  return {'', 0, 0}
end
local charged = {}
for i = 2, #ARGV, 3 do
  local name, units, per_minute = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local due = math.max(tonumber(redis.call('HGET', record, name) or 0), now)
  local interval = minute / per_minute
  local after = due + units * interval
  if after - minute > now + 0.5 then
    return {name, math.max(0, math.ceil(after - minute - now)), math.floor((minute - (due - now)) / interval + 0.001)}
  end
  charged[name] = after
end
if job_id == '' then
  return {'', 0, 0}
end
for name, due in pairs(charged) do
  redis.call('HSET', record, name, string.format('%.3f', due))
end
redis.call('HSET', record, 'job', job_id)
redis.call('PEXPIRE', record, 2 * minute)
return {'', 0, 0}
