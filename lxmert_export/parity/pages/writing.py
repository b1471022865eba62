"""Writes reports to files. Each file appears whole or not at all, and all paths are checked before anything is run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lxmert_export.errors import ArtifactError
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.parity.pages.html import html_page
from lxmert_export.parity.pages.junit import junit_xml
from lxmert_export.parity.pages.markdown import markdown_page

Report = Mapping[str, Any]
ReportPath = str | os.PathLike[str] | None


def json_text(report: Report) -> str:
    """Returns the report as indented JSON."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def write_reports(
    report: Report,
    *,
    json: ReportPath = None,
    junit: ReportPath = None,
    markdown: ReportPath = None,
    html: ReportPath = None,
) -> None:
    """Writes a report, as ``ParityReport.to_dict`` returns it, in every form that has a path.

    All texts are made before the first file is written. ``ArtifactError``: a path cannot be written.
    """
    writers: list[tuple[ReportPath, Callable[[Report], str]]] = [
        (json, json_text),
        (junit, junit_xml),
        (markdown, markdown_page),
        (html, html_page),
    ]
    check_report_paths(path for path, _ in writers)
    texts = [(Path(path), text(report)) for path, text in writers if path is not None]
    for path, text in texts:
        _write(path, text.encode())


def check_report_paths(paths: Iterable[ReportPath]) -> None:
    """Raises ``ArtifactError`` if a report cannot be written or two have the same path. Call this before the work starts."""
    chosen = [Path(path) for path in paths if path is not None]
    for place, path in enumerate(chosen):
        folder = path.absolute().parent
        if path.is_dir():
            raise ArtifactError(f"{path}: the report cannot be written: it is a directory; name a file")
        if not folder.is_dir():
            raise ArtifactError(f"{path}: the report cannot be written: there is no directory {folder}; make it first")
        if not os.access(path if _is_special(path) else folder, os.W_OK):
            raise ArtifactError(f"{path}: the report cannot be written: permission denied; name another place")
        if path.absolute() in [other.absolute() for other in chosen[:place]]:
            raise ArtifactError(f"{path}: two reports cannot go into one file: give each its own name")


def _write(path: Path, content: bytes) -> None:
    try:
        if _is_special(path):
            path.write_bytes(content)
        else:
            target = path.resolve()  # of a link, the file that it leads to is replaced
            replace_files(target.parent, {target.name: content})
    except OSError as error:
        raise ArtifactError(f"{path}: the report cannot be written: {error.strerror}") from error


def _is_special(path: Path) -> bool:
    """Whether the path is a pipe or a device, such as /dev/stdout, which cannot be replaced but only written to."""
    return path.exists() and not path.is_file()
