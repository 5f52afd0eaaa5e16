"""The contract between the API and the workers: task and result models, Redis keys, Lua scripts, queue client."""
