"""Model families, each with its own way to encode prompts, denoise and decode."""
