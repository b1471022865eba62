"""A reader while another run replaces the artifact: it gets the old one, the new one, or one clear line."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact, is_artifact, open_artifact
from lxmert_export.artifact.golden import golden_of
from lxmert_export.errors import ArtifactError
from lxmert_export.files import appearing_together
from lxmert_export.files.atomic_directory import atomic_directory
from lxmert_export.runners import opening
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

pytestmark = pytest.mark.quick

REPLACEMENTS, MOST_REPLACEMENTS = 30, 3000
LINES = ("is being replaced by another run; open it again", "was replaced or removed while it was read; open it again")


@pytest.fixture
def two(exports: Exports) -> tuple[Artifact, Artifact]:
    """Two artifacts whose files have the same names and sizes, and other weights."""
    return exports.lively("onnx", "question-answering", TINY), exports.lively(
        "onnx", "question-answering", TINY, seed=1
    )


@pytest.fixture
def place(two: tuple[Artifact, Artifact], tmp_path: Path) -> Path:
    return put(two[0], tmp_path / "out")


def put(artifact: Artifact, place: Path) -> Path:
    with atomic_directory(place, overwrite=True) as temporary:
        shutil.copytree(artifact.path, temporary, dirs_exist_ok=True)
    return place


def test_readers_beside_a_writer(two: tuple[Artifact, Artifact], place: Path) -> None:
    """Opened, and its golden outputs compared with those of the artifact whose manifest it has."""
    known = [(artifact.manifest.files, golden_of(artifact).reference) for artifact in two]
    stop = threading.Event()
    told: list[str] = []
    seen: list[int] = []

    def write() -> None:
        for number in range(MOST_REPLACEMENTS):
            put(two[1 - number % 2], place)
            if number >= REPLACEMENTS and set(seen) == {0, 1}:
                break
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        try:
            artifact = open_artifact(place)
            found = golden_of(artifact).reference
        except ArtifactError as error:
            told.append(str(error))
            continue
        files = [files for files, _ in known].index(artifact.manifest.files)
        seen.append(files)
        assert all(np.array_equal(a, b) for key in found for a, b in zip(found[key], known[files][1][key], strict=True))
    writer.join()
    assert set(seen) == {0, 1}
    assert [line for line in told if not line.endswith(LINES)] == []


@pytest.mark.parametrize("times", [1, 100])
def test_a_replacement_while_hashes_are_compared_is_opened_again(
    times: int, two: tuple[Artifact, Artifact], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, left = Artifact.check_files, iter(range(times))

    def meddled(artifact: Artifact) -> None:
        if next(left, None) is not None:
            put(two[1], place)
        check(artifact)

    monkeypatch.setattr(Artifact, "check_files", meddled)
    if times == 1:
        assert open_artifact(place).manifest == two[1].manifest
    else:
        with pytest.raises(ArtifactError, match=LINES[0]):
            open_artifact(place)


def runner(artifact: Artifact) -> object:
    return opening.open_runner(artifact)


@pytest.mark.parametrize("read", [runner, golden_of], ids=["runner", "golden file"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_files_of_an_artifact_that_was_replaced_since_it_was_opened_are_not_used(
    read: Callable[[Artifact], object],
    when: str,
    two: tuple[Artifact, Artifact],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = open_artifact(place)
    found = Artifact.file

    def meddled(artifact: Artifact, name: str) -> Path:
        path = found(artifact, name)
        put(two[1], place)
        return path

    if when == "before":
        put(two[1], place)
    else:
        monkeypatch.setattr(Artifact, "file", meddled)
    with pytest.raises(ArtifactError, match=LINES[1]):
        read(artifact)


def test_a_file_of_the_same_inode_size_and_age_is_another_one(place: Path) -> None:
    """A replaced artifact's inode is used again, and a copy keeps the time of its contents."""
    artifact, manifest = open_artifact(place), place / "manifest.json"
    before, content = manifest.stat(), manifest.read_bytes()
    while manifest.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock ticks slowly
        manifest.write_bytes(content)
        os.utime(manifest, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = manifest.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    with pytest.raises(ArtifactError, match=LINES[1]):
        golden_of(artifact)


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("alive", [True, False])
def test_an_artifact_that_is_set_aside_is_finished_or_told(
    alive: bool, two: tuple[Artifact, Artifact], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a writer sees it between its two renames: alive, or killed there."""
    rename = Path.replace

    def stopped(path: Path, target: Path) -> Path:
        if target != place:
            return rename(path, target)
        assert is_artifact(place)
        if alive:
            with pytest.raises(ArtifactError, match=LINES[0]):
                open_artifact(place)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        patch.setattr(appearing_together, "_put_back", killed)  # a kill puts nothing back
        with pytest.raises(KeyboardInterrupt):
            put(two[1], place)
    assert not place.exists() and is_artifact(place)
    with lx.load_artifact(place) as opened:
        assert opened.manifest == two[1].manifest
    assert [path.name for path in place.parent.iterdir()] == ["out"]


def test_a_moved_artifact_is_told(place: Path) -> None:
    artifact = open_artifact(place)
    place.rename(place.with_name("elsewhere"))
    with pytest.raises(ArtifactError, match=LINES[1]):
        opening.open_runner(artifact)
