"""The memory of a device that a model takes, from shapes alone."""
