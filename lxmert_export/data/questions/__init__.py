"""Files of questions, answers, annotations and answer names."""
