"""The former path of ``lxmert_export.exporting.activation_ranges``, kept for programs that import it."""

from lxmert_export.exporting.activation_ranges import largest_activations, lint_artifact, lint_ranges

__all__ = ["largest_activations", "lint_artifact", "lint_ranges"]
