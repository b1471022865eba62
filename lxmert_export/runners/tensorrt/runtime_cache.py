"""TensorRT-RTX compiles an engine's kernels for the GPU when they are first needed; here they are kept for the next time.

They lie in a directory of the user's, one file for each engine, version of TensorRT-RTX and GPU; never in the artifact, whose
hashes are checked. Any file may be deleted at any time. No run of ours has executed this on a GPU yet.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lxmert_export.errors import ArtifactError
from lxmert_export.files.atomic_files import replace_files

SETTING = "LXMERT_EXPORT_RUNTIME_CACHE"  # another directory; empty: kernels are not kept
FORMAT = "lxmert-export runtime cache 1"


def cache_directory() -> Path | None:
    """Where compiled kernels are kept; None where the user wants that, or has no home."""
    if (named := os.environ.get(SETTING)) is not None:
        return Path(named).absolute() if named else None
    home = Path(os.path.expanduser("~"), ".cache")  # noqa: PTH111  (Path.home() raises where there is none)
    given = Path(os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", ""))
    place = given if given.is_absolute() else home
    return place / "lxmert-export" / "tensorrt-rtx" if place.is_absolute() else None


class CacheFile:
    """The compiled kernels of one engine, TensorRT-RTX and GPU: a line that says whose they are, then what the runtime wrote."""

    def __init__(self, directory: Path, *, engine: str, runtime: str, gpu: str) -> None:
        self.directory = directory
        self._key = {"engine": engine, "runtime": runtime, "gpu": gpu}
        digest = hashlib.sha256("\n".join(self._key.values()).encode()).hexdigest()
        self.path = directory / f"{digest[:32]}.kernels"
        self._known = ""  # the hash of what lies there

    def read(self) -> bytes | None:
        """What was kept, or None; ``ArtifactError`` says why it cannot be used: damaged, or of something else."""
        try:
            line, _, kernels = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactError(f"{self.path}: cannot be read: {error}") from error
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ArtifactError(f"{self.path}: is damaged, or no runtime cache") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ArtifactError(f"{self.path}: is no runtime cache of this version")
        if other := [name for name, value in self._key.items() if found.get(name) != value]:
            raise ArtifactError(f"{self.path}: is of another {', '.join(other)}")
        if found.get("sha256") != _digest(kernels):
            raise ArtifactError(f"{self.path}: is damaged")
        self._known = _digest(kernels)
        return kernels

    def write(self, kernels: bytes) -> None:
        """Keeps kernels, whole or not at all, where they are others than before; ``ArtifactError``: they cannot be written."""
        if (digest := _digest(kernels)) == self._known:
            return
        line = json.dumps({"format": FORMAT, **self._key, "sha256": digest}).encode()
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # what lies there is executed
            replace_files(self.directory, {self.path.name: line + b"\n" + kernels})
        except OSError as error:
            raise ArtifactError(
                f"{self.directory}: compiled kernels are not kept: {error}; name another directory by {SETTING}"
            ) from error
        self._known = digest


class RuntimeCache:
    """What makes an engine's contexts, with the kernels that were kept; ``ignored`` says why those were not used."""

    def __init__(self, engine: Any, file: CacheFile) -> None:
        self._engine, self._file = engine, file
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        self.ignored = ""
        try:
            kernels = file.read()
        except ArtifactError as error:
            kernels, self.ignored = None, str(error)
        # The runtime compares version, GPU and driver itself, and takes nothing of others.
        if kernels is not None and not self._cache.deserialize(kernels):
            self.ignored = f"{file.path}: TensorRT-RTX does not take it: it is of another environment"
        self._config.set_runtime_cache(self._cache)

    def create_context(self) -> Any:
        """A context whose kernels come from the cache, and go there; None where there is no room for one."""
        return self._engine.create_execution_context(self._config)

    def serialized(self) -> bytes:
        """All kernels that were compiled by now."""
        return bytes(self._cache.serialize())

    def keep(self, kernels: bytes) -> None:
        """Writes them where the next run finds them; ``ArtifactError``: it cannot."""
        self._file.write(kernels)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
