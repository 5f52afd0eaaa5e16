"""What is under trial, and a proxy in between."""
