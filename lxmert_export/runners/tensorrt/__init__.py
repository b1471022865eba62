"""Engines in TensorRT and TensorRT-RTX."""
