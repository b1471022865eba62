"""The canonical PyTorch model in float64: what artifacts are judged against, and where they leave it."""
