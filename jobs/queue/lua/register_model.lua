#!lua flags=allow-oom
-- Adds a model to the list of all models: not part of announce.lua, because in a Cluster the list is in another slot.
-- KEYS: names of all models
-- ARGV: name
redis.call('SADD', KEYS[1], ARGV[1])
