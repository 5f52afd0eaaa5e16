"""Speed and memory of distillation."""
