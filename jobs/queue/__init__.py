"""The queue of a model on Redis: its keys and Lua scripts, and the clients that read and write it."""
