"""What callers have asked for before: the calls that their idempotency keys name, and their rates."""
