"""Keeps the kernels that TensorRT-RTX compiles when a GPU first needs them, so that the next run need not compile them.

Each engine, version of TensorRT-RTX and GPU has a file in a directory of the user; nothing is written to the artifact,
whose hashes are checked. Any file may be deleted at any time. Never run by us on a GPU yet.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lxmert_export.errors import ArtifactError
from lxmert_export.files.appearing_together import directory_made
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.files.user_cache import user_cache

SETTING = "LXMERT_EXPORT_RUNTIME_CACHE"  # environment variable: another directory; empty: kernels are not kept
FORMAT = "lxmert-export runtime cache 1"


def cache_directory() -> Path | None:
    """Returns the directory for compiled kernels; None if the user turned the cache off, or has no home directory."""
    if (named := os.environ.get(SETTING)) is not None:
        return Path(named).absolute() if named else None
    return user_cache("tensorrt-rtx")


class CacheFile:
    """The kernels of one engine, TensorRT-RTX version and GPU in a file: a line of JSON names these, the kernels follow."""

    def __init__(self, directory: Path, *, engine: str, runtime: str, gpu: str) -> None:
        self.directory = directory
        self._key = {"engine": engine, "runtime": runtime, "gpu": gpu}
        digest = hashlib.sha256("\n".join(self._key.values()).encode()).hexdigest()
        self.path = directory / f"{digest[:32]}.kernels"
        self._known = ""  # the hash of the kernels in the file, once known

    def read(self) -> bytes | None:
        """Returns the kept kernels, or None if there are none.

        ``ArtifactError``: the file is unreadable, damaged, or belongs to another engine, runtime or GPU.
        """
        try:
            line, _, kernels = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactError(f"{self.path}: cannot be read: {error}") from error
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ArtifactError(f"{self.path}: is damaged, or not a runtime cache") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ArtifactError(f"{self.path}: is not a runtime cache of this version")
        if other := [name for name, value in self._key.items() if found.get(name) != value]:
            raise ArtifactError(f"{self.path}: belongs to another {', '.join(other)}")
        if found.get("sha256") != _digest(kernels):
            raise ArtifactError(f"{self.path}: is damaged")
        self._known = _digest(kernels)
        return kernels

    def write(self, kernels: bytes) -> None:
        """Writes kernels, whole or not at all, if they have changed. ``ArtifactError``: they cannot be written."""
        if (digest := _digest(kernels)) == self._known:
            return
        line = json.dumps({"format": FORMAT, **self._key, "sha256": digest}).encode()
        try:
            with directory_made(self.directory, mode=0o700):  # kernels in this directory are executed
                replace_files(self.directory, {self.path.name: line + b"\n" + kernels})
        except OSError as error:
            raise ArtifactError(
                f"{self.directory}: compiled kernels are not kept: {error.strerror}; set {SETTING} to another directory"
            ) from error
        self._known = digest


class RuntimeCache:
    """Makes an engine's contexts with the kernels that were kept; ``ignored`` says why kept kernels were not used."""

    def __init__(self, engine: Any, file: CacheFile) -> None:
        self._engine, self._file = engine, file
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        self.ignored = ""
        try:
            kernels = file.read()
        except ArtifactError as error:
            kernels, self.ignored = None, str(error)
        # The runtime itself compares version, GPU and driver, and rejects kernels that were made for others.
        if kernels is not None and not self._cache.deserialize(kernels):
            self.ignored = f"{file.path}: TensorRT-RTX rejects it: it was made in another environment"
        self._config.set_runtime_cache(self._cache)

    def create_context(self) -> Any:
        """Returns a context that takes its kernels from the cache and adds new ones; None if memory is short."""
        return self._engine.create_execution_context(self._config)

    def serialized(self) -> bytes:
        """Returns all kernels that were compiled so far."""
        return bytes(self._cache.serialize())

    def keep(self, kernels: bytes) -> None:
        """Writes kernels for the next run. ``ArtifactError``: they cannot be written."""
        self._file.write(kernels)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
