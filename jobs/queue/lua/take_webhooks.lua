-- Takes webhooks that are due, of callers in random order. Each is due again after the pause that follows its attempt.
-- KEYS: set of the callers that have any
-- ARGV: number of webhooks, number under way of each caller, number of pauses, the pauses (ms),
--       then callers that have some under way, each with their number
-- Returns for each webhook its caller, its entry id, its fields and the number of its attempts, this one included.
local callers = KEYS[1]
local count, each, pauses, under_way = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, {}
local first_caller = 4 + ARGV[3]
for i = 4, first_caller - 1 do
  pauses[#pauses + 1] = ARGV[i]
end
for i = first_caller, #ARGV, 2 do
  under_way[ARGV[i]] = ARGV[i + 1]
end
local callers_asked = 100

local of_model = string.match(callers, '^(.*)webhook%-callers$')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local taken = {}
for _, caller in ipairs(redis.call('SRANDMEMBER', callers, callers_asked)) do
  local webhooks, due = of_model .. 'webhooks:' .. caller, of_model .. 'webhooks-due:' .. caller
  local room = math.max(0, math.min(count - #taken, each - (under_way[caller] or 0)))
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, room)) do
    local attempts, entry = string.match(name, '^(%d+) (.+)$')
    attempts = attempts + 1
    redis.call('ZREM', due, name)
    local found = redis.call('XRANGE', webhooks, entry, entry)[1]
    if found then
      redis.call('ZADD', due, now + pauses[math.min(attempts, #pauses)], attempts .. ' ' .. entry)
      taken[#taken + 1] = {caller, entry, found[2], attempts}
    end
  end
  if redis.call('EXISTS', due) == 0 then
    redis.call('SREM', callers, caller)
  end
end
return taken
