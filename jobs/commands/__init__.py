"""The commands that work on Redis alone."""
