"""Scheduling policies compared, in a simulation and on the engine."""
