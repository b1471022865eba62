"""What a conversion has finished so far, in a directory beside its output, from which the next run goes on.

.NAME.converting/
    lock         locked (flock) while a run lives
    plan.json    what is converted, and what of it is finished
    …            the finished files
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from lxmert_export.errors import ArtifactError
from lxmert_export.files.atomic_files import replace_file
from lxmert_export.files.json_files import read_json
from lxmert_export.files.locks import Hold, locked

LOCK, PLAN = "lock", "plan.json"


class Unfinished:
    """The directory of one conversion. ``finished``: an entry for each part that is whole and on the disk."""

    def __init__(self, directory: Path, inputs: Mapping[str, Any]) -> None:
        self.directory, self._inputs = directory, dict(inputs)
        self.finished: list[dict[str, Any]] = self._left()
        if not self.finished:
            self._clear()
            self._write()

    def keep(self, entry: dict[str, Any]) -> None:
        """Notes a part whose file is on the disk under its last name. ``OSError``: it cannot be noted."""
        self.finished.append(entry)
        self._write()

    def keep_only(self, is_there: Callable[[dict[str, Any]], bool]) -> None:
        """Forgets the first part whose file is not there any more, and all behind it."""
        self.finished = list(takewhile(is_there, self.finished))

    def remove_plan(self, directory: Path) -> None:
        """Removes what only an unfinished conversion has, from where its directory is now."""
        for name in (PLAN, LOCK):
            (directory / name).unlink(missing_ok=True)

    def _left(self) -> list[dict[str, Any]]:
        """What an earlier run of the same inputs has finished."""
        try:
            plan = read_json(self.directory / PLAN)
            found: list[dict[str, Any]] = plan["finished"] if plan["inputs"] == self._inputs else []
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return found

    def _write(self) -> None:
        plan = {"inputs": self._inputs, "finished": self.finished}
        replace_file(self.directory / PLAN, json.dumps(plan, indent=1).encode())

    def _clear(self) -> None:
        """Removes what a conversion of something else left. All here is ours: the name is hidden, and says so."""
        for entry in self.directory.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


@contextmanager
def unfinished(output: Path, inputs: Mapping[str, Any]) -> Iterator[Unfinished]:
    """Yields what earlier runs have finished beside ``output``. What is added stays if the block fails.

    ``inputs`` (values of JSON) decide about the output; what was finished with others is removed. ``ArtifactError``: another
    run is converting into the same output.
    """
    directory = output.with_name(f".{output.name}.converting")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / LOCK) as held:
        if held is Hold.ANOTHERS:
            raise ArtifactError(
                f"{output}: another run is converting into it: wait for it, or choose another output (-o)"
            )
        yield Unfinished(directory, json.loads(json.dumps(inputs)))
