"""A directory appears whole or not at all, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lxmert_export.errors import ArtifactError
from lxmert_export.files import atomic_directory as atomic
from lxmert_export.files.atomic_directory import atomic_directory, refuse_existing, refuse_source
from lxmert_export.interrupts import ended_by_signals, raise_if_stopped

pytestmark = pytest.mark.quick


def write(final: Path, text: str, *, overwrite: bool = False) -> None:
    with atomic_directory(final, overwrite=overwrite) as temporary:
        (temporary / "manifest.json").write_text(
            '{"target": "onnx", "files": {"file": {}}}'
        )  # what tells a directory of ours
        (temporary / "file").write_text(text)


def leftovers(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name.startswith("."))


def test_success(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "out", "new")
    assert (tmp_path / "deep" / "out" / "file").read_text() == "new"
    assert not leftovers(tmp_path / "deep")


def test_existing_is_refused_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(ArtifactError, match=r"overwrite=True replaces"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_overwrite_replaces_all_of_it(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    write(tmp_path / "out", "new", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["file", "manifest.json"]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_failure_changes_nothing(error: type[BaseException], existing: bool, tmp_path: Path) -> None:
    if existing:
        write(tmp_path / "out", "old")
    with pytest.raises(error), atomic_directory(tmp_path / "out", overwrite=True) as temporary:
        (temporary / "file").write_text("half")
        raise error
    assert (tmp_path / "out").exists() == existing
    assert not existing or (tmp_path / "out" / "file").read_text() == "old"
    assert not leftovers(tmp_path)


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with (
        pytest.raises(
            ArtifactError, match=r"cannot be written: No space left on device; nothing was changed"
        ) as caught,
        atomic_directory(tmp_path / "out", overwrite=True),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_failed_rename_restores_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out", "old")
    replace = Path.replace

    def fail_for_the_new_one(path: Path, target: Path) -> Path:
        if path.parent.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_one)
    with pytest.raises(ArtifactError, match="Input/output error"):
        write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("existing", ["file", "symlink"])
def test_what_is_no_directory_is_never_replaced(existing: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    if existing == "symlink":
        (tmp_path / "out").symlink_to(target)
    else:
        target.rename(tmp_path / "out")
    with pytest.raises(ArtifactError, match="not a directory"):
        write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_what_is_not_ours_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(out, "an empty one may go", overwrite=True)
    (out / "manifest.json").rename(out / "mine")
    with pytest.raises(ArtifactError, match="holds no artifact"):
        write(out, "new", overwrite=True)
    (out / "manifest.json").write_text("{}")  # another program's
    (out / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds no artifact"):
        write(out, "new", overwrite=True)
    (out / "config.json").unlink()
    (out / "mine").rename(out / "manifest.json")
    monkeypatch.chdir(out)
    for name in ("", ".", "../out"):
        with pytest.raises(ArtifactError, match="is the current directory"):
            write(Path(name), "new", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["file", "manifest.json"]


def test_of_two_runs_at_once_the_later_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="exists already"), atomic_directory(tmp_path / "out", overwrite=False):
        write(tmp_path / "out", "first")
    assert (tmp_path / "out" / "file").read_text() == "first"
    assert not leftovers(tmp_path)


def test_a_run_that_finishes_between_the_last_check_and_the_rename_keeps_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check it is as if the first run had finished just after it."""
    monkeypatch.setattr(atomic, "_refuse", lambda final, overwrite, kind: None)
    refused = pytest.raises(ArtifactError, match="cannot be written: Directory not empty; nothing was changed")
    with refused, atomic_directory(tmp_path / "out", overwrite=False) as temporary:
        (temporary / "file").write_text("second")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("first")
    assert (tmp_path / "out" / "file").read_text() == "first"
    assert not leftovers(tmp_path)


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"):
        write(tmp_path / "file" / "out", "new")


WRITER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit its being ignored
from pathlib import Path
from lxmert_export.files.atomic_directory import atomic_directory, refuse_source
with atomic_directory(Path(sys.argv[1]), overwrite=True) as temporary:
    (temporary / "file").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_writer_leaves_the_old_one_and_the_next_run_tidies_up(kill: signal.Signals, tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "out")], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, cwd=Path(__file__).parent.parent.parent)  # fmt: skip
    assert writer.stdout is not None
    writer.stdout.readline()
    # while it runs, another run leaves its half-written directory alone
    write(tmp_path / "other", "new")
    with pytest.raises(ArtifactError, match="exists already"):
        write(tmp_path / "out", "new")
    assert len(leftovers(tmp_path)) == 1
    writer.send_signal(kill)
    writer.wait()
    writer.stdout.close()
    time.sleep(0.1)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert len(leftovers(tmp_path)) == (1 if kill == signal.SIGKILL else 0)
    write(tmp_path / "out", "new", overwrite=True)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_directories_made_above_a_failed_one_go_too(stop: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(stop), atomic_directory(tmp_path / "there" / "a" / "b" / "out", overwrite=False):
        raise stop
    assert not list((tmp_path / "there").iterdir())


def test_space_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    needs = (
        r"out: cannot be written: No space left on device: 1,000,000,000,000,000 bytes are needed and [\d,]+ are free"
    )
    with (
        pytest.raises(ArtifactError, match=needs),
        atomic_directory(tmp_path / "out", overwrite=False, needed=10**15),
    ):
        pytest.fail("the work began")
    assert not list(tmp_path.iterdir())


def test_a_place_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "batch1").write_text("a file")
    with pytest.raises(ArtifactError, match=f"{tmp_path / 'batch1'} is not a directory; choose another output"):
        refuse_existing(tmp_path / "batch1" / "deeper" / "out", overwrite=False)


def test_a_link_out_of_its_directory_is_a_source_there(tmp_path: Path) -> None:
    """A hub's snapshot holds links to files that lie elsewhere."""
    snapshot, blob = tmp_path / "snapshot", tmp_path / "blob"
    snapshot.mkdir()
    blob.write_bytes(b"weights")
    (snapshot / "pytorch_model.bin").symlink_to(blob)
    with pytest.raises(ArtifactError, match="the source"):
        refuse_source(snapshot / "pytorch_model.bin", snapshot)
    refuse_source(snapshot / "pytorch_model.bin", tmp_path / "other")
    refuse_source("demo", tmp_path / "other")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_is_lost_still_ends_the_run(number: signal.Signals, tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    with (
        pytest.raises((KeyboardInterrupt, SystemExit)),
        ended_by_signals(),
        atomic_directory(tmp_path / "out", overwrite=False) as place,
    ):
        (place / "file").write_text("new")
        with suppress(KeyboardInterrupt, SystemExit):  # as a callback of native code does
            signal.raise_signal(number)
    assert not any(tmp_path.iterdir())
    raise_if_stopped()  # the next command of the process is not stopped
