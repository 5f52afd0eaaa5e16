"""Published few-step models as servable folders."""
