"""What people would write instead: each file one small server of the same pictures. See docs/benchmarks.md."""
