"""The networks: modules that hold parameters and call `step.ops`."""
