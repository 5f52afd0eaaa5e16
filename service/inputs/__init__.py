"""Pictures that calls bring: checked, brought to the model's size, and handed to the queue."""
