"""Files and directories: written whole or not at all, found, and read with care."""
