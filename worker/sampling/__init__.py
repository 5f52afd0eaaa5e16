"""Noise levels, the sampler's table of coefficients, and starting noise."""
