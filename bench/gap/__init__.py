"""The gap between two steps of a busy worker: `python -m bench.gap`."""
