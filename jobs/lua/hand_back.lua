-- Puts claimed entries back into the stream as new ones, so that a blocked reader wakes for them at once.
-- KEYS: task stream, then the job hash of each entry
-- ARGV: group, then for each entry its id, image index and task (JSON)
-- Returns the number handed back; entries settled in the meantime are left alone.
local tasks, group = KEYS[1], ARGV[1]
local handed = 0
for i = 2, #KEYS do
  local entry, index, task = ARGV[3 * i - 4], ARGV[3 * i - 3], ARGV[3 * i - 2]
  if redis.call('XACK', tasks, group, entry) == 1 then
    redis.call('XDEL', tasks, entry)
    local again = redis.call('XADD', tasks, '*', 'task', task)
    if redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('HSET', KEYS[i], 'entry:' .. index, again)
    end
    handed = handed + 1
  end
end
return handed
