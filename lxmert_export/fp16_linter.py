"""The former path of ``lxmert_export.graphs.fp16_linter``, kept for programs that import it."""

from lxmert_export.graphs.fp16_linter import Finding, lint_fp16

__all__ = ["Finding", "lint_fp16"]
