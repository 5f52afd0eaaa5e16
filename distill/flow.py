"""Flow matching's grid and sampler by their short names."""

from distill.noise_schedule import FLOW, shifted_grid

__all__ = ["euler", "shifted_grid"]

euler = FLOW.solve
