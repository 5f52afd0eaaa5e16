"""The seconds that steps take: measured at the start and beside serving, and kept current."""
