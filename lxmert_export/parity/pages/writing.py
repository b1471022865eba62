"""Writes reports to files. They appear together or not at all, and all paths are checked before anything is run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lxmert_export.errors import ArtifactError
from lxmert_export.files.atomic_files import write_together
from lxmert_export.files.replacing import may_be_a_report
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

    ``ArtifactError``: a path cannot be written.
    """
    write_texts(report, [(json, json_text), (junit, junit_xml), (markdown, markdown_page), (html, html_page)])


def write_texts(report: Report, writers: Sequence[tuple[ReportPath, Callable[[Report], str]]]) -> None:
    """Writes a report in every form that has a path.

    All texts are made before the first file is written. ``ArtifactError``: a path cannot be written. If it
    is a file, nothing was; a pipe or a device is written last.
    """
    check_report_paths(path for path, _ in writers)
    texts = {Path(path): text(report).encode() for path, text in writers if path is not None}
    special = [path for path in texts if _is_special(path)]
    # Of a link, the file that it leads to is replaced.
    files = {path.resolve(): content for path, content in texts.items() if path not in special}
    with _written(*(path for path in texts if path not in special)):
        write_together(files)
    for path in special:
        with _written(path):
            path.write_bytes(texts[path])


@contextmanager
def _written(*paths: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        them = "the report cannot be written" if len(paths) == 1 else "the reports cannot be written, so none was"
        raise ArtifactError(f"{', '.join(map(str, paths))}: {them}: {error.strerror}") from error


def check_report_paths(paths: Iterable[ReportPath], reads: Iterable[ReportPath] = ()) -> None:
    """Raises ``ArtifactError`` if a report cannot be written or two have the same path. Call this before the work starts.

    ``reads``: what the work reads; no report may replace it.
    """
    chosen = [Path(path) for path in paths if path is not None]
    read = {Path(path).resolve() for path in reads if path is not None}
    for place, path in enumerate(chosen):
        folder = path.absolute().parent
        if path.is_dir():
            raise ArtifactError(f"{path}: the report cannot be written: it is a directory; name a file")
        if not folder.is_dir():
            raise ArtifactError(f"{path}: the report cannot be written: there is no directory {folder}; make it first")
        if not os.access(path if _is_special(path) else folder, os.W_OK):
            raise ArtifactError(f"{path}: the report cannot be written: permission denied; name another place")
        if path.is_file() and os.access(path, os.R_OK) and not may_be_a_report(path.resolve()):
            raise ArtifactError(
                f"{path}: the report cannot be written: a file that is no report is there; name another"
            )
        if not _is_special(path) and read & {path.resolve(), *path.resolve().parents}:
            raise ArtifactError(f"{path}: the report cannot be written: it is what is read; name another place")
        if path.resolve() in [other.resolve() for other in chosen[:place]]:
            raise ArtifactError(f"{path}: two reports cannot go into one file: give each its own name")


def _is_special(path: Path) -> bool:
    """Whether the path is a pipe or a device, such as /dev/stdout, which cannot be replaced but only written to."""
    return path.exists() and not path.is_file()
