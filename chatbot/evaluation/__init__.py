"""How good the search is, in numbers."""
