"""The parts under trial, and a proxy between them."""
