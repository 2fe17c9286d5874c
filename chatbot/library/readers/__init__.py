"""One module per kind of file, each a function from path to ReadDocument; `Reader` runs them in a child."""

from chatbot.library.readers.reader import Reader, Reading

__all__ = ["Reader", "Reading"]
