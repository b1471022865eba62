"""Writes an evaluation to files, which appear together or not at all."""

from __future__ import annotations

from lxmert_export.parity.pages.writing import Report, ReportPath, json_text, write_texts
from lxmert_export.scoring.pages.html import evaluation_page
from lxmert_export.scoring.pages.junit import junit_xml
from lxmert_export.scoring.pages.markdown import markdown_page


def write_evaluation(
    report: Report,
    *,
    json: ReportPath = None,
    junit: ReportPath = None,
    markdown: ReportPath = None,
    html: ReportPath = None,
) -> None:
    """Writes a report, as ``EvaluationReport.to_dict`` returns it. ``ArtifactError``: a path cannot be written."""
    write_texts(report, [(json, json_text), (junit, junit_xml), (markdown, markdown_page), (html, evaluation_page)])
