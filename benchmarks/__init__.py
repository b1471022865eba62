"""What is timed, against what, and the committed results."""
