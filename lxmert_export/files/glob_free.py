"""Gives TensorFlow a path without ``* ? [ ] \\``, which it would read as a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PATTERN_CHARACTERS = re.compile(r"[*?\[\]\\]")


@contextmanager
def glob_free(directory: Path) -> Iterator[Path]:
    """Yields the directory, or a temporary link to it if its path has characters of a pattern."""
    if not PATTERN_CHARACTERS.search(str(directory)):
        yield directory
        return
    with TemporaryDirectory(prefix="lxmert-export-link-") as temporary:
        link = Path(temporary) / "directory"
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link
