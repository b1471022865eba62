"""Runs artifacts and judges what they compute. Nothing here or below reaches PyTorch, but the classes of a ``.keras`` file."""
