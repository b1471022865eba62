"""Passes over TFLite files."""
