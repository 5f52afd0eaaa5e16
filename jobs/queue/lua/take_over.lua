-- Hands tasks of workers whose lease is gone to another worker, and forgets such workers when they hold nothing.
-- A worker also gets back its own tasks that it has not renewed: those of an answer that never reached it.
-- KEYS: task stream
-- ARGV: group, worker id, least time since the last renewal (ms), number of tasks, what the names of leases begin with
-- Returns for each task its entry id, its fields, how often it was delivered, and the worker that held it.
local tasks = KEYS[1]
local group, worker, idle, count, leases = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local page = 100

local alive = {[worker] = false}
local function is_alive(name)
  if alive[name] == nil then
    alive[name] = redis.call('EXISTS', leases .. name) == 1
  end
  return alive[name]
end

local taken = {}
local from = '-'
while #taken < count do
  local pending = redis.call('XPENDING', tasks, group, 'IDLE', idle, from, '+', page)
  for _, held in ipairs(pending) do
    local entry, owner, deliveries = held[1], held[2], held[4]
    if #taken < count and not is_alive(owner) then
      deliveries = owner == worker and deliveries or deliveries + 1
      local claimed = redis.call('XCLAIM', tasks, group, worker, 0, entry, 'RETRYCOUNT', deliveries)
      if claimed[1] then
        taken[#taken + 1] = {entry, claimed[1][2], deliveries, owner}
      end
    end
    from = '(' .. entry
  end
  if #pending < page then
    break
  end
end
for _, about in ipairs(redis.call('XINFO', 'CONSUMERS', tasks, group)) do
  local consumer = {}
  for i = 1, #about, 2 do
    consumer[about[i]] = about[i + 1]
  end
  local gone = consumer.name ~= worker and consumer.idle > idle and not is_alive(consumer.name)
  if gone and consumer.pending == 0 then -- else its tasks would be forgotten with it
    redis.call('XGROUP', 'DELCONSUMER', tasks, group, consumer.name)
  end
end
return taken
