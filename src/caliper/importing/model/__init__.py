"""The model that a recording brings along, repaired and compiled out of harm's way."""
