"""Runs a model on a data set and scores it: `step-eval`."""
