-- Counts the webhooks that have been due for some time, and that nobody has taken.
-- KEYS: set of the callers that have any
-- ARGV: that time (ms)
local callers = KEYS[1]
local of_model = string.match(callers, '^(.*)webhook%-callers$')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local overdue = 0
for _, caller in ipairs(redis.call('SMEMBERS', callers)) do
  overdue = overdue + redis.call('ZCOUNT', of_model .. 'webhooks-due:' .. caller, '-inf', now - ARGV[1])
end
return overdue
