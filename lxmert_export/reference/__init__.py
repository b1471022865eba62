"""The canonical PyTorch model in float64: judges artifacts by it, and locates where they differ from it."""
