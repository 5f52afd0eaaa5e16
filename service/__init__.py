"""The HTTP API: validates, admits into Redis, waits, answers. Holds no queue and imports no torch."""
