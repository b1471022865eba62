"""Files that appear whole or not at all, in directories that may hold others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lxmert_export.files.appearing_together import appearing_together, check_space, finish_killed_runs


def replace_files(directory: Path, files: Mapping[str, bytes], *, overwrite: bool = True) -> None:
    """Writes files into a directory; all of them appear together, or none does.

    ``OSError``: they cannot be written, or one exists and ``overwrite`` is False. Nothing was changed.
    """
    write_together({directory.absolute() / name: content for name, content in files.items()}, overwrite=overwrite)


def write_together(files: Mapping[Path, bytes], *, overwrite: bool = True) -> None:
    """Writes files to absolute paths; all of them appear together, or none does.

    ``OSError``: as above.
    """
    for directory in {path.parent for path in files}:
        finish_killed_runs(directory)
        check_space(directory, sum(len(content) for path, content in files.items() if path.parent == directory))
    with appearing_together(*files, overwrite=overwrite) as temporary:
        for path, content in zip(temporary, files.values(), strict=True):
            path.write_bytes(content)
