"""Scores answers as the official programs do, and compares who answered: numpy only."""
