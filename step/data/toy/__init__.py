"""Makes a synthetic data set of drawn figures, in the form of AVA."""
