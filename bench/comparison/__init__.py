"""Comparison with the servers that people would use instead: `make bench`, docs/benchmarks.md."""
