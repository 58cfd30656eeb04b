"""Custom operators of domain `step`: their signature and a body of standard ONNX operators each."""
