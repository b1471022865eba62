"""Passes over ONNX graphs, which the converter runs after tracing."""
