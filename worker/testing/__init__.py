"""Tiny pipelines of random weights, for tests, benchmarks and docs."""
