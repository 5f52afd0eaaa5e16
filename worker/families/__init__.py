"""Model families: how each encodes prompts, denoises and decodes."""
