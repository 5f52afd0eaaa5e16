"""Webhooks: the ends of asynchronous jobs, sent to addresses of their callers' choice."""
