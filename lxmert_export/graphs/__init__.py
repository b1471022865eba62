"""What the graph in an artifact's file really holds, read from the file itself."""
