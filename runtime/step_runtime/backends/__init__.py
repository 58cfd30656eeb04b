"""What runs the model: ONNX Runtime, PyTorch; one Protocol."""
