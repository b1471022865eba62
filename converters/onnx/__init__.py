"""Passes over ONNX graphs: what the converter does to a graph after it was traced."""
