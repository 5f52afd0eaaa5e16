-- Counts the webhooks that are due, and that nobody has taken yet.
-- KEYS: set of the callers that have any
local callers = KEYS[1]
local of_model = string.match(callers, '^(.*)webhook%-callers$')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local due = 0
for _, caller in ipairs(redis.call('SMEMBERS', callers)) do
  due = due + redis.call('ZCOUNT', of_model .. 'webhooks-due:' .. caller, '-inf', now)
end
return due
