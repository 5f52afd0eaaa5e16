"""What a row begins with: its prompts as embeddings, its noise, and the picture that it comes from."""
