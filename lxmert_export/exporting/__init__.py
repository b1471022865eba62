"""From a checkpoint or a module to an artifact on disk."""
