"""What works here: `step-doctor`."""
