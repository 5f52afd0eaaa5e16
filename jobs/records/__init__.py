"""What all records share that are stored in Redis or sent over it."""
