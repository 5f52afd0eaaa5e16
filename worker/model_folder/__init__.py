"""Model folders: where they are, whether they can be served, and loading them."""
