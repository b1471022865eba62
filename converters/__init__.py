"""One module per target: writes what an artifact holds; each imports its framework at its top."""
