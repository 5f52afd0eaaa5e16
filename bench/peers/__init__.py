"""The servers that people would write instead, one small file each, of the same pictures. See docs/benchmarks.md."""
