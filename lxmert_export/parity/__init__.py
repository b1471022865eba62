"""Floors, scores, decisions and reports: the measured statement that two runners compute the same function. numpy only."""
