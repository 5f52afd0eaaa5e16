"""Step-level batching: which rows share a step, and how a step runs on the device."""
