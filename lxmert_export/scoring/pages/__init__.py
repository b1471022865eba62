"""The report of an evaluation for people and for CI systems."""
