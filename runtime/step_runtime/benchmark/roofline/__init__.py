"""Where the time of a graph goes, beside what the machine could do at best: `step-bench roofline`."""
