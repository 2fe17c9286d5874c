"""Documents: reading, cutting into passages, storing, indexing."""
