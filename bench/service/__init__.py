"""Load on the front end, the queue and a whole worker."""
