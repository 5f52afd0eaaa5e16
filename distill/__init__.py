"""DP-DMD distillation: from a many-step teacher to a few-step student that keeps its diversity."""
