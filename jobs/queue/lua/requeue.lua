-- Puts claimed entries back into the stream as new ones, so that a blocked reader wakes for them at once.
-- KEYS: task stream, sets, then the job hash of each entry
-- ARGV: group, then for each entry its id and image index
-- Returns the number of requeued entries; entries that were settled in the meantime are skipped.
local tasks, sets, group = KEYS[1], KEYS[2], ARGV[1]
local requeued = 0
for i = 3, #KEYS do
  local entry, index = ARGV[2 * i - 4], ARGV[2 * i - 3]
  local task = redis.call('XRANGE', tasks, entry, entry)[1] -- as it was queued, perhaps by a newer version
  if task and redis.call('XACK', tasks, group, entry) == 1 then
    redis.call('XDEL', tasks, entry)
    local again = redis.call('XADD', tasks, '*', unpack(task[2]))
    local more = redis.call('HGET', sets, entry)
    if more then
      redis.call('HDEL', sets, entry)
      redis.call('HSET', sets, again, more)
    end
    if redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('HSET', KEYS[i], 'entry:' .. index, again)
    end
    requeued = requeued + 1
  end
end
return requeued
