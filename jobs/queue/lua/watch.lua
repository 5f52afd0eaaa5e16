#!lua flags=allow-oom
-- Sends a job's events to one more channel.
-- KEYS: job hash
-- ARGV: channel
local channels = redis.call('HGET', KEYS[1], 'channel')
if channels and not string.find(channels, ARGV[1], 1, true) then
  redis.call('HSET', KEYS[1], 'channel', channels .. ' ' .. ARGV[1])
end
