"""Cost of an image in Redis and latency by number of workers: docs/scaling.md."""
