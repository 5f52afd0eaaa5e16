"""Records of earlier calls: those that their idempotency keys name, and their rates."""
