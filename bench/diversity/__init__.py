"""Diverse sets, the diversity score and previews on the bundled student."""
