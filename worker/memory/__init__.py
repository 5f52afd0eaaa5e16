"""The memory that a model takes of a device, from shapes alone."""
