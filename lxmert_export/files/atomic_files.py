"""Files that appear whole or not at all, in a directory that may hold others."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def replace_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a directory: all of them under temporary names, then renames them.

    After an error or an interrupt the old files are restored. A process that is killed between two renames leaves whole files,
    some old and some new.
    """
    mark = f".writing-{os.getpid()}-{secrets.token_hex(4)}"
    old = {name: (directory / name).read_bytes() for name in files if (directory / name).exists()}
    moved: list[str] = []
    try:
        for name, content in files.items():
            with (directory / f".{name}{mark}").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # a full disk is noticed here, before an old file is touched
        for name in files:
            moved.append(name)
            (directory / f".{name}{mark}").replace(directory / name)
    except BaseException:
        for name in moved:
            if name in old:
                (directory / name).write_bytes(old[name])
            else:
                (directory / name).unlink(missing_ok=True)
        raise
    finally:
        for name in files:
            with suppress(OSError):
                (directory / f".{name}{mark}").unlink(missing_ok=True)
