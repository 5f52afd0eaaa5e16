"""The words that captions are put together from."""
