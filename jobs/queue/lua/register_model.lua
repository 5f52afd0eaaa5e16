#!lua flags=allow-oom
-- Notes that a model exists: apart from announce.lua, because in a Cluster the list lies elsewhere.
-- KEYS: names of all models
-- ARGV: name
redis.call('SADD', KEYS[1], ARGV[1])
