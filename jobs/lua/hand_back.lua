-- Puts claimed entries back into the stream as new ones, so that a blocked reader wakes for them at once.
-- KEYS: task stream
-- ARGV: group, then pairs of entry id and task (JSON)
-- Returns the number handed back; entries settled in the meantime are left alone.
local tasks, group = KEYS[1], ARGV[1]
local handed = 0
for i = 2, #ARGV, 2 do
  if redis.call('XACK', tasks, group, ARGV[i]) == 1 then
    redis.call('XDEL', tasks, ARGV[i])
    redis.call('XADD', tasks, '*', 'task', ARGV[i + 1])
    handed = handed + 1
  end
end
return handed
