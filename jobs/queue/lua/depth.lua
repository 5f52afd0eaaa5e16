-- KEYS: task stream, sets
-- ARGV: group
-- Returns {images waiting for a worker, images held by workers}.
return {count_images(KEYS[1], KEYS[2], ARGV[1])}
