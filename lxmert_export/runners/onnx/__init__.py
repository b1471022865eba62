"""ONNX files in onnxruntime: as they are, emulated in half precision, and with their intermediate values."""
