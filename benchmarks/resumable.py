"""The steps of a long run, each run once: the result of a finished step is kept until the whole run is finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lxmert_export.artifact.manifest import tool_versions
from lxmert_export.files.atomic_files import replace_files


class Steps:
    """Finished steps by name, as JSON files in ``directory / key``.

    Results under another key are removed: other sources computed them. A step that did not finish leaves nothing.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.place = directory / key
        self.place.mkdir(parents=True, exist_ok=True)
        for stale in set(directory.iterdir()) - {self.place}:
            shutil.rmtree(stale)

    def once(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result of a step, and runs the step unless an earlier run finished it."""
        file = self.place / f"{name}.json"
        if not self.is_finished(name):
            file.parent.mkdir(exist_ok=True)
            replace_files(file.parent, {file.name: json.dumps(work()).encode()})
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def is_finished(self, name: str) -> bool:
        """Whether a step has finished."""
        return (self.place / f"{name}.json").is_file()

    def forget(self) -> None:
        """Removes all results, because the run is finished."""
        shutil.rmtree(self.place)


def source_key(root: Path, sources: Iterable[str], distributions: Sequence[str]) -> str:
    """Returns a hash of all files below some paths and of some packages' versions; others make results stale."""
    digest = hashlib.sha256(json.dumps(tool_versions(distributions)).encode())
    for source in map(root.joinpath, sources):
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(root)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
