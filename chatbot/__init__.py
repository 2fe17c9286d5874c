"""Hearth: a private chatbot for your own documents, on your own PC."""

__version__ = "0.1.0"
