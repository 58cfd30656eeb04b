"""ONNX graphs of a model, checked against PyTorch."""
