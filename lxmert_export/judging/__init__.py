"""Runs artifacts and judges what they compute. Nothing here or below imports PyTorch, except the classes of a ``.keras`` file."""
