"""Files that appear whole or not at all, in directories that may hold others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lxmert_export.files.appearing_together import appearing_together, check_space, finish_killed_runs, sync_entries


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


def replace_file(file: Path, content: bytes) -> None:
    """Writes one file in a directory of this run alone: under another name, flushed to the disk, and renamed.

    ``OSError``: it cannot be written, and nothing was changed. A killed run leaves the other name, which the next one takes.
    """
    soon = file.with_name(f"{file.name}.soon")
    try:
        with soon.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        soon.replace(file)
    except OSError:
        with suppress(OSError):
            soon.unlink(missing_ok=True)
        raise
    sync_entries(file.parent)
