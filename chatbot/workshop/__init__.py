"""Where models are fetched, made and checked: orders begin jobs, work does them, outlines say what they need."""
