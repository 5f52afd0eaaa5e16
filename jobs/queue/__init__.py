"""The queue of one model on Redis, and everything that reads or writes it."""
