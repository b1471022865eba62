"""The report of a bench for people: on a terminal and as one HTML page."""
