"""Exporting STEP to ONNX: `step-export model.pth -o bundle`."""
