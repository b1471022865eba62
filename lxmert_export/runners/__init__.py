"""Runs an artifact or a model: one module per runtime, each with its runtime imported at its top."""
