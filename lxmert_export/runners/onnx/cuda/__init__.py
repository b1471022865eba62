"""Runs ONNX artifacts on an NVIDIA GPU, with onnxruntime's CUDA provider."""
