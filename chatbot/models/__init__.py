"""Models on disk: the list, the import, the check."""
