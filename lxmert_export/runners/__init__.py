"""Runners of artifacts and models: one module per runtime, which imports its runtime at its top."""
