"""From questions, and what is asked about, to an artifact's answers."""
