"""The worker: takes image tasks from the queue and denoises them, one step of one batch at a time."""
