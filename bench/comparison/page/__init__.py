"""docs/benchmarks.md, its plots and the table in the README, from the committed JSON."""
