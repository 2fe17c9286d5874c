"""Conversations: history, prompt, answer, support."""
