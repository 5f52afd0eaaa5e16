"""Limits on what callers may have: images and evaluations a minute, bytes of answers, event streams."""
