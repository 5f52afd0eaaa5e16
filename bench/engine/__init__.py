"""Throughput, bits and step times of the engine alone, without a queue or a server."""
