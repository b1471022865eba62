"""The command line: parses, calls the Python interface, prints. Nothing is computed here."""
