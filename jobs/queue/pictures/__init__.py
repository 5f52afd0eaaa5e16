"""Pictures that calls bring, beside the queue."""
