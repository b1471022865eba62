"""Where a user's programs keep what they can make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path | None:
    """Returns the directory in which this package keeps things of one kind; None if the user has no home directory."""
    home = Path(os.path.expanduser("~"), ".cache")  # noqa: PTH111  (Path.home() raises where there is none)
    given = Path(os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", ""))
    place = given if given.is_absolute() else home
    return place / "lxmert-export" / name if place.is_absolute() else None
