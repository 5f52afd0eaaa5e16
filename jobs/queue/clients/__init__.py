"""What redis-py's clients lack: shared pipelines, and a Cluster whose errors are those of any Redis."""
