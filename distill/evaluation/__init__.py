"""How good and how diverse a student's pictures are, beside its teacher's."""
