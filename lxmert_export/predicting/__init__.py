"""Answers questions with an artifact."""
