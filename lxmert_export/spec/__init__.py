"""What every target agrees on: sizes, names, dtypes, axes, sample inputs."""
