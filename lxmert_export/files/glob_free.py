"""A path that TensorFlow can open: it takes ``* ? [ \\`` in the name of a SavedModel's directory for a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PATTERN_CHARACTERS = re.compile(r"[*?\[\]\\]")


@contextmanager
def glob_free(directory: Path) -> Iterator[Path]:
    """The directory itself, or where its name reads as a pattern a link to it, which is gone afterwards."""
    if not PATTERN_CHARACTERS.search(str(directory)):
        yield directory
        return
    with TemporaryDirectory(prefix="lxmert-export-link-") as temporary:
        link = Path(temporary) / "directory"
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link
