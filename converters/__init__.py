"""Converters: one module per target writes the model file of an artifact, and imports its framework at its top."""
