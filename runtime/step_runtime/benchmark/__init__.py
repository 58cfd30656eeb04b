"""Side-by-side measurements of every way of running a model."""
