"""Rewrites a traced graph for onnxruntime's CUDA provider: few kernels, each of which does much (docs/cuda.md)."""
