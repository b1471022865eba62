"""What all targets share: the config, names, dtypes, axes and sample inputs."""
