#!lua flags=allow-oom
-- Announces a warm worker, also when Redis has no memory left: else other workers would reclaim its tasks.
-- KEYS: model card, worker's lease, workers, times since which they are known (hash), the card that is kept for good
-- ARGV: card (JSON), card's ttl (ms), lease (ms), worker id
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
redis.call('SET', KEYS[5], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[4])
redis.call('HSETNX', KEYS[4], ARGV[4], redis.call('TIME')[1])
