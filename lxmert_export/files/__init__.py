"""Files and directories: found, read safely, and written whole or not at all."""
