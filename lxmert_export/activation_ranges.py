"""The linter's ranges under the name that they had before rooms: see ``lxmert_export.exporting.activation_ranges``."""

from lxmert_export.exporting.activation_ranges import largest_activations, lint_artifact, lint_ranges

__all__ = ["largest_activations", "lint_artifact", "lint_ranges"]
