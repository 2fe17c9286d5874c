"""One module per kind of file, each a function from path to ReadDocument."""
