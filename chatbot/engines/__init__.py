"""Anything that can answer, each in a process of its own."""
