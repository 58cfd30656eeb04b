"""Side-by-side measurements of every configuration of running a model."""
