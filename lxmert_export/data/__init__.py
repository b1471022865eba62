"""What people bring: files of picture features, of questions, and of answers."""
