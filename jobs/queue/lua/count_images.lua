-- Prelude of the scripts that count images: those that wait for a worker, and those that workers hold.
-- A stream entry is one image, except for a diverse set: `sets` (hash) maps its entry to its images beyond the first.
local function count_images(tasks, sets, group)
  local held = redis.call('XPENDING', tasks, group)[1]
  local waiting = redis.call('XLEN', tasks) - held
  local more = redis.call('HGETALL', sets)
  if #more == 0 then
    return waiting, held
  end

  local function position(entry)
    local milliseconds, sequence = string.match(entry, '^(%d+)-(%d+)$')
    return tonumber(milliseconds), tonumber(sequence)
  end

  local last_milliseconds, last_sequence = 0, 0
  for _, about in ipairs(redis.call('XINFO', 'GROUPS', tasks)) do
    for i = 1, #about, 2 do
      if about[i] == 'last-delivered-id' then
        last_milliseconds, last_sequence = position(about[i + 1])
      end
    end
  end
  for i = 1, #more, 2 do
    local milliseconds, sequence = position(more[i])
    if milliseconds > last_milliseconds or milliseconds == last_milliseconds and sequence > last_sequence then
      waiting = waiting + more[i + 1]
    else
      held = held + more[i + 1]
    end
  end
  return waiting, held
end

