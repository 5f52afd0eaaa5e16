"""The engine in a process of its own: nothing else there holds the interpreter between two steps."""
