"""TensorRT-RTX's compiled kernels are kept between runs, and whatever is wrong with the file is told and ignored."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lxmert_export.errors import ArtifactError
from lxmert_export.runners.tensorrt.runtime_cache import SETTING, CacheFile, cache_directory
from parity_tests.engines.stand_in_library import OUTPUT, StandIn, call, opened


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("**/*"))


def test_kernels_are_kept_for_the_next_runner(library: StandIn, tmp_path: Path) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    (file,) = kept(tmp_path)
    assert library.count("deserialize") == 0 and file.read_bytes().endswith(b"\nkernel 0")
    written = file.stat().st_mtime_ns, file.stat().st_ino
    with opened(tmp_path) as runner:
        assert library.kernels == [b"kernel 0"]
        runner.run(call())
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written  # nothing new, nothing written
    with opened(tmp_path) as runner:
        runner.run(call(4))
    assert kept(tmp_path) == [file] and file.read_bytes().endswith(b"\nkernel 0\nkernel 1")
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "model.engine"}


def test_a_runner_that_ran_nothing_writes_nothing(library: StandIn, tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert library.count("serialize") == 0 and not kept(tmp_path)


@pytest.mark.parametrize(
    "facts",
    [{"sha256": "aa" * 32}, {"gpu": "Some GPU, driver 2"}, {"version": "1.7.2"}],
    ids=lambda facts: next(iter(facts)),
)
def test_each_engine_gpu_and_version_has_a_file_of_its_own(
    facts: dict[str, Any], library: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    monkeypatch.setattr(StandIn, "__version__", facts.get("version", "1.7.1"))
    with opened(tmp_path, **facts) as runner:
        runner.run(call())
    assert len(kept(tmp_path)) == 2 and library.count("deserialize") == 0


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flip(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])


def _move(file: Path) -> None:
    header, kernels = file.read_bytes().split(b"\n", 1)
    file.write_bytes(json.dumps({**json.loads(header), "gpu": "Another"}).encode() + b"\n" + kernels)


def _older(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"runtime cache 1", b"runtime cache 0"))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (_cut, "is damaged"),
    "flipped bit": (_flip, "is damaged"),
    "no header": (lambda file: file.write_bytes(b"kernels"), "is damaged, or not a runtime cache"),
    "empty": (lambda file: file.write_bytes(b""), "is damaged, or not a runtime cache"),
    "another gpu": (_move, "belongs to another gpu"),
    "another format": (_older, "is not a runtime cache of this version"),
    "no object": (lambda file: file.write_bytes(b"[]\n"), "is not a runtime cache of this version"),
}


@pytest.mark.parametrize(("spoil", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_or_foreign_cache_is_ignored_and_told(
    spoil: Callable[[Path], Any], reason: str, library: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    (file,) = kept(tmp_path)
    sound = file.read_bytes()
    spoil(file)
    with opened(tmp_path) as runner:
        assert library.count("deserialize") == 0, "the runtime saw a byte of it"
        assert OUTPUT in runner.run(call())
    assert [record.getMessage() for record in caplog.records] == [f"{file}: {reason}; kernels are compiled again"]
    assert file.read_bytes() == sound  # compiled anew, and kept


def test_what_the_runtime_does_not_take_is_told(
    library: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as runner:
        runner.run(call())
    library.takes_kernels = False
    with opened(tmp_path) as runner:
        runner.run(call(4))
    assert "TensorRT-RTX rejects it" in caplog.text and caplog.records[0].levelno == logging.WARNING
    assert kept(tmp_path)[0].read_bytes().endswith(b"\nkernel 1")


def test_a_cache_that_cannot_be_written_does_not_cost_the_run(
    library: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(SETTING, str(tmp_path / "file" / "cache"))
    with opened(tmp_path) as runner:
        assert OUTPUT in runner.run(call())
    assert "compiled kernels are not kept" in caplog.text and SETTING in caplog.text


def test_a_cache_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CacheFile(tmp_path / "cache", engine="e", runtime="r", gpu="g")
    file.write(b"first")
    before = file.path.read_bytes()

    def full_disk(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ArtifactError, match="No space left on device"):
        file.write(b"second")
    assert file.path.read_bytes() == before and kept(tmp_path) == [file.path]
    assert CacheFile(tmp_path / "cache", engine="e", runtime="r", gpu="g").read() == b"first"


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_without_a_cache(runtime: str, library: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user wants none, and with classic TensorRT, which has none."""
    if runtime == "tensorrt-rtx":
        monkeypatch.setenv(SETTING, "")
    with opened(tmp_path, runtime=runtime) as runner:
        runner.run(call())
    assert library.count("context") == 1 and not {"set cache", "context from cache", "serialize"} & {*library.calls}
    assert not kept(tmp_path)


def test_where_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / ".cache" / "lxmert-export" / "tensorrt-rtx"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "lxmert-export" / "tensorrt-rtx"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert cache_directory() == tmp_path / ".cache" / "lxmert-export" / "tensorrt-rtx"
    monkeypatch.setenv(SETTING, str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.setenv(SETTING, "")
    assert cache_directory() is None
