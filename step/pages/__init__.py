"""HTML reports: what all of them look like, and the charts in them."""
