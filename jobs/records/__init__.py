"""The common ground of all records that are stored in Redis or sent over it."""
