"""TensorRT plugins for the operators of domain `step` (not written yet; every runtime uses the function bodies)."""
