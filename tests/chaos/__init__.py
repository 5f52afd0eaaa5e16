"""The whole service under faults: see `__main__`."""
