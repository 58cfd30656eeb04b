"""Two ways of running a model, compared graph by graph: `step-verify`."""
