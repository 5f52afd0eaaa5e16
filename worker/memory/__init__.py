"""How much of a device's memory a model takes, from shapes alone."""
