"""The directory that a conversion writes."""

from lxmert_export.artifact.directory import open_artifact

__all__ = ["open_artifact"]
