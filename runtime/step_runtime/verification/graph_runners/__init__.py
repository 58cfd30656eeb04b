"""Ways of running one graph of a bundle, to compare them."""
