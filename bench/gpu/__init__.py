"""The benchmark of a GPU: `make bench-gpu`."""
