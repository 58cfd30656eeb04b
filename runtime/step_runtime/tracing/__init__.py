"""Where the time of a run goes: `step-run --trace`."""
