"""How much memory a model needs here, and which way of running it follows."""
