"""The command line: parses options, calls the Python interface, prints. It computes nothing itself."""
