"""The linter's rules under the name that they had before rooms: see ``lxmert_export.graphs.fp16_linter``."""

from lxmert_export.graphs.fp16_linter import Finding, lint_fp16

__all__ = ["Finding", "lint_fp16"]
