"""A model on a data set: `step-eval`."""
