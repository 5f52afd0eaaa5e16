"""The beginning of a row: its prompts as embeddings, its noise, and the picture that it comes from."""
