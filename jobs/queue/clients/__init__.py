"""Clients of Redis: pipelines that callers share, and a Cluster whose errors are those of any Redis."""
