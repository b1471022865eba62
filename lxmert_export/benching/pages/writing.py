"""Writes the report of a bench to files, which appear together or not at all."""

from __future__ import annotations

from lxmert_export.benching.pages.html import bench_page
from lxmert_export.parity.pages.writing import Report, ReportPath, json_text, write_texts


def write_bench(report: Report, *, json: ReportPath = None, html: ReportPath = None) -> None:
    """Writes a report, as ``BenchReport.to_dict`` returns it. ``ArtifactError``: a path cannot be written."""
    write_texts(report, [(json, json_text), (html, bench_page)])
