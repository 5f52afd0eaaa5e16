"""`fourstep up`: Redis, workers and the API as one process tree."""
