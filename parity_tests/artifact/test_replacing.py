"""``overwrite`` replaces what a command of the same kind wrote, and nothing else: not its source, no file of others."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import lxmert_export as lx
from lxmert_export.artifact.manifest import write_manifest
from lxmert_export.checkpoint.files import find_weight_file
from lxmert_export.errors import ArtifactError
from lxmert_export.exporting.bundle import pack
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.exporting.refusal import check_keep_failed
from lxmert_export.files import appearing_together
from lxmert_export.files.atomic_files import write_together
from lxmert_export.files.listing import files_below
from lxmert_export.files.replacing import check_replaceable
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.random_models import TINY, lively_model

pytestmark = pytest.mark.quick
CONVERT = ("--to", "hf", "--task", "model", "--overwrite")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The directory of a training: a checkpoint, and files that no command of this package wrote."""
    place = tmp_path / "loss"
    lx.save_checkpoint(lively_model("question-answering", TINY), place)
    for name in ("README.md", "optimizer.pt"):
        (place / name).write_text("mine")
    return place


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_convert_never_replaces_its_source(trained: Path, tmp_path: Path) -> None:
    for name in ("README.md", "optimizer.pt"):
        (trained / name).unlink()
    (tmp_path / "link").symlink_to(trained)
    linked = tmp_path / "linked"  # a directory whose weights are links, as in the hub's cache
    linked.mkdir()
    for file in trained.iterdir():
        (linked / file.name).symlink_to(file)
    before = contents(trained)
    for source in ("loss", "loss/model.safetensors", "link", "link/model.safetensors", "linked", "./loss/../loss"):
        done = run("convert", source, "-o", "loss", *CONVERT, cwd=tmp_path)
        refused(done, "loss: is the source" if source == "link" else "the source")
        refused(done, "so it is not replaced; choose another output (-o)")
        assert contents(trained) == before
    assert run("convert", "loss", "-o", "new", *CONVERT, cwd=tmp_path).returncode == 0
    assert run("convert", "loss", "-o", "new", *CONVERT, cwd=tmp_path).returncode == 0  # its own output


def test_files_of_others_are_named_and_kept(trained: Path, tmp_path: Path) -> None:
    lx.save_checkpoint(lively_model("model", TINY), tmp_path / "source")
    before = contents(trained)
    refused(
        run("convert", "source", "-o", "loss", *CONVERT, cwd=tmp_path),
        "loss: holds README.md, optimizer.pt besides the checkpoint that lxmert-export wrote, so --overwrite does not "
        "replace it; move those files away, or choose another output (-o)",
    )
    assert contents(trained) == before
    with pytest.raises(ArtifactError, match=r"holds README\.md, optimizer\.pt besides"):
        lx.save_checkpoint(lively_model("model", TINY), trained, overwrite=True)
    refused(
        run("onnx", "source", "-o", "loss", "--no-parity", "--overwrite", cwd=tmp_path),
        "loss: holds no artifact that lxmert-export wrote, but README.md",
    )
    assert contents(trained) == before


def manifest(place: Path, *files: str, passed: bool = True) -> Path:
    """A directory with a manifest and the files that it lists."""
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    values = {"target": "onnx", "files": {name: {} for name in files}, "parity": {"passed": passed}}
    (place / "manifest.json").write_text(json.dumps(values))
    return place


def test_an_artifact_is_replaced_only_if_its_manifest_lists_all(tmp_path: Path) -> None:
    place = manifest(tmp_path / "out", "model.onnx", "saved_model/variables/variables.index")
    (place / "saved_model" / "assets").mkdir()  # TensorFlow makes it, and leaves it empty
    check_replaceable(place, "artifact")
    with pytest.raises(ArtifactError, match="holds no checkpoint that lxmert-export wrote"):
        check_replaceable(place, "checkpoint")
    for name in ("NOTES.md", "saved_model/mine"):
        (place / name).touch()
        with pytest.raises(ArtifactError, match=rf"holds {name} besides the artifact .*; move that file away"):
            check_replaceable(place, "artifact")
        (place / name).unlink()
    (place / "link").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="holds link besides"):
        check_replaceable(place, "artifact")


def test_two_files_of_weights_are_not_of_one_run(trained: Path) -> None:
    shutil.copyfile(trained / "model.safetensors", trained / "tf_model.h5")
    with pytest.raises(ArtifactError, match="holds no checkpoint that lxmert-export wrote, but README"):
        check_replaceable(trained, "checkpoint")


def test_a_refused_artifact_with_notes_in_it_is_kept(tmp_path: Path) -> None:
    place = manifest(tmp_path / "out", "model.onnx", passed=False)
    check_keep_failed(ExportOptions("onnx", "fp32", keep_failed=place))
    (place / "NOTES.md").touch()
    with pytest.raises(ArtifactError, match=r"holds NOTES\.md besides the artifact"):
        check_keep_failed(ExportOptions("onnx", "fp32", keep_failed=place))


def test_a_file_that_comes_while_the_new_is_flushed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size flushing takes seconds; what is set aside afterwards is deleted with all that is in it."""
    place = lx.export("onnx", lively_model("model", TINY), tmp_path / "out", parity=False).path
    sync = appearing_together._sync

    def beside_a_user(directory: Path) -> None:
        sync(directory)
        (place / "NOTES.md").write_text("mine")

    monkeypatch.setattr(appearing_together, "_sync", beside_a_user)
    with pytest.raises(ArtifactError, match="holds NOTES.md besides the artifact"):
        lx.export("onnx", lively_model("model", TINY), place, parity=False, overwrite=True)
    assert (place / "NOTES.md").read_text() == "mine" and lx.open_artifact(place)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def write_tarball(directory: Path) -> None:
    pack(directory, directory.with_suffix(".tar.gz"), "it")


def find_weights(directory: Path) -> None:
    find_weight_file(directory / "inner")


@pytest.mark.parametrize(
    "listing",
    [files_below, write_tarball, find_weights, partial(write_manifest, manifest=mock.Mock()),
     partial(check_replaceable, kind="checkpoint")],
)  # fmt: skip
def test_a_directory_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    listing: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rglob`` passes over it: an artifact was written whose manifest listed no file, and all was said to be well."""
    place = tmp_path / "it"
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "model.pth").write_text("weights")
    scandir, listdir = os.scandir, os.listdir

    def failing(real: Callable[[Any], Any], path: Any) -> Any:
        if str(path).endswith("inner"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", partial(failing, scandir))
    monkeypatch.setattr(os, "listdir", partial(failing, listdir))
    with pytest.raises(PermissionError):
        listing(place)


def test_nothing_to_write_is_nothing_to_do(tmp_path: Path) -> None:
    write_together({})
    assert not list(tmp_path.iterdir())
