"""The training loop and what it needs: roles, checkpoints, processes, telemetry."""
