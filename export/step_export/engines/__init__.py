"""Builds TensorRT engines of a bundle: `step-build`."""
