"""Which leftovers are of runs that have ended, and which are not to be touched."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from lxmert_export.files import locks as locks_module
from lxmert_export.files import workspaces
from lxmert_export.files.appearing_together import appearing_together, finish_killed_runs
from lxmert_export.files.workspaces import LOCK, NEW, OLD, READY, WORKSPACE, make_workspace, this_boot, this_host
from parity_tests.fixtures.command import ROOT

pytestmark = pytest.mark.quick


def leftover(place: Path, host: str | None = None, boot: str | None = None, process: int = 1, things: int = 2) -> Path:
    """What a run of two things leaves that was killed between two renames: ``out`` was to become ``new``."""
    made = make_workspace(place, "out")
    (made.path / NEW / "out").write_text("new")
    (made.path / READY).write_text(f"replace what is there\n{things}")
    name = f".out.writing-{host or this_host()}-{boot or this_boot()}-{process}-0123abcd"
    path = made.path.rename(place / name)
    os.close(made.lock)
    return path


def test_a_workspace_is_told_by_its_name(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, "out")
    assert WORKSPACE.fullmatch(made.path.name) and not WORKSPACE.fullmatch(".out.writing-7-0123abcd")
    made.remove()
    assert not list(tmp_path.iterdir())
    long = make_workspace(tmp_path, "ä" * 127)  # 254 bytes, one less than a name may have
    assert len(os.fsencode(long.path.name)) < 255
    long.remove()


@pytest.mark.parametrize("process", [1, os.getpid(), 10**20], ids=["1", "ours, as in the next container", "too large"])
def test_a_run_whose_lock_is_free_has_ended_whatever_its_number(process: int, tmp_path: Path) -> None:
    leftover(tmp_path, process=process)
    finish_killed_runs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out").read_text() == "new"


def test_a_run_that_was_killed_before_its_first_rename_is_forgotten(tmp_path: Path) -> None:
    """Else the same command, given again, would find an output that nobody had seen, and refuse to replace it."""
    leftover(tmp_path, things=1)
    finish_killed_runs(tmp_path)
    assert not list(tmp_path.iterdir())
    path = leftover(tmp_path, things=1)
    os.link(path / NEW / "out", tmp_path / "out")  # a file gets its name without losing the other
    finish_killed_runs(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"] and (tmp_path / "out").read_text() == "new"


def test_what_could_not_be_removed_is_left_to_the_next_run_with_its_lock(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "out")
    with mock.patch("shutil.rmtree"):
        workspace.remove()
    assert (workspace.path / LOCK).exists()
    finish_killed_runs(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["unlink", "stat"])
def test_a_fault_after_the_last_rename_is_none_of_the_output(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is in its place by then: to say that nothing was changed would be wrong."""
    done = getattr(Path, call)

    def fail_for_the_mark(path: Path, **options: bool) -> object:
        if path.name == READY and (tmp_path / "out").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return done(path, **options)

    with monkeypatch.context() as faulty:
        faulty.setattr(Path, call, fail_for_the_mark)
        with appearing_together(tmp_path / "out", overwrite=False) as (out,):
            out.write_text("new")
    assert (tmp_path / "out").read_text() == "new"
    finish_killed_runs(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_run_whose_lock_is_held_is_alive_whatever_its_number(tmp_path: Path) -> None:
    """As in another container: the number is that of no process here."""
    path = leftover(tmp_path, process=10**20)
    with (path / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finish_killed_runs(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and (path / NEW / "out").exists()
    finish_killed_runs(tmp_path)
    assert (tmp_path / "out").exists()


CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
WRITER = """
import os, socket, sys
from pathlib import Path
from lxmert_export.files.appearing_together import appearing_together, finish_killed_runs
socket.sethostname(sys.argv[2])
final = Path(sys.argv[1])
finish_killed_runs(final.parent)
with appearing_together(final, overwrite=False) as (out,):
    out.write_text(sys.argv[2])
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_containers_tell_the_living_from_the_dead(tmp_path: Path) -> None:
    """Each has its own host name and process numbers: every writer is number 1."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no namespaces can be made here")

    def start(name: str) -> subprocess.Popen[str]:
        command = [*CONTAINER, sys.executable, "-c", WRITER, str(tmp_path / name), f"host-{name}"]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def names() -> list[str]:
        return sorted(path.name.partition("-")[0] for path in tmp_path.iterdir())

    with start("killed") as killed, start("first") as first:
        for writer in (killed, first):
            assert writer.stdout is not None and writer.stdout.readline() == "1\n"
        with start("second") as second:
            second.communicate("")
        assert names() == [".first.writing", ".killed.writing", "second"]
        killed.kill()  # and with it what runs in the container
        killed.wait()
        assert killed.stdout is not None and killed.stdout.read() == ""  # until the writer is gone
        with start("third") as third:
            third.communicate("")
        assert names() == [".first.writing", "second", "third"]
        first.communicate("")
    assert names() == ["first", "second", "third"]


@pytest.mark.parametrize("same", ["boot", "host"])
def test_another_container_and_a_machine_that_was_started_again_are_this_machine(same: str, tmp_path: Path) -> None:
    leftover(tmp_path, **({"host": "another"} if same == "boot" else {"boot": "0123abcd"}))
    finish_killed_runs(tmp_path)
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("host", "boot"), [("another", "0123abcd"), ("localhost", "0123abcd"), ("another", "00000000")]
)
def test_what_another_machine_left_is_told_and_never_touched(
    host: str, boot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not on machines that share their name with many, nor where there is no number of a boot."""
    path = leftover(tmp_path, host=host, boot=boot)
    monkeypatch.setattr(workspaces, "this_host", lambda: "localhost")
    if boot == "00000000":
        monkeypatch.setattr(workspaces, "this_boot", lambda: "00000000")
    finish_killed_runs(tmp_path)
    assert (path / NEW / "out").exists() and not (tmp_path / "out").exists()
    assert f"it is of another machine ({host})" in caplog.text and "remove it if that run has ended" in caplog.text


def no_locks(lock: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("locks", [no_locks, None], ids=["not on this disk", "not on this system"])
@pytest.mark.parametrize("when", ["written", "found", "both"])
def test_without_locks_it_is_told_and_nothing_is_touched(
    when: str,
    locks: Callable[[int, int], None] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        if when != "found":
            patch.setattr(locks_module, "flock", locks)
        path = leftover(tmp_path)
    if when != "written":
        monkeypatch.setattr(locks_module, "flock", locks)
    finish_killed_runs(tmp_path)
    assert (path / NEW / "out").exists() and not (tmp_path / "out").exists()
    assert "its file system has no locks that tell whether its run has ended" in caplog.text
    with appearing_together(tmp_path / "other", overwrite=False) as (other,):  # one can write there all the same
        other.write_text("new")
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "other"}


def test_second_names_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows knows no links of this kind, and some file systems none at all."""
    for error in (OSError(errno.EPERM, "no links"), NotImplementedError()):
        monkeypatch.setattr(os, "link", mock.Mock(side_effect=error))
        with appearing_together(tmp_path / "out", overwrite=True) as (out,):
            out.write_text(str(error))
        with pytest.raises(FileExistsError), appearing_together(tmp_path / "out", overwrite=False) as (out,):
            out.write_text("another")
        assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out").read_text() == str(error)


def of_another_user(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)


def a_link(path: Path, patch: pytest.MonkeyPatch) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_linked_lock(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / LOCK).rename(path.with_name("elsewhere"))
    (path / LOCK).symlink_to(path.with_name("elsewhere"))


def without_a_lock(path: Path, patch: pytest.MonkeyPatch) -> None:
    (path / LOCK).unlink()


@pytest.mark.parametrize("spoil", [of_another_user, a_link, a_linked_lock, without_a_lock])
def test_what_is_not_ours_is_never_touched(
    spoil: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leftover(tmp_path)
    spoil(path, monkeypatch)
    finish_killed_runs(tmp_path)
    assert (path / NEW / "out").exists() and not (tmp_path / "out").exists()


def test_what_cannot_be_put_in_place_is_told_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = leftover(tmp_path)
    (path / OLD / "out").write_text("old")
    (tmp_path / "out").mkdir()
    finish_killed_runs(tmp_path)
    assert (path / NEW / "out").read_text() == "new" and (path / OLD / "out").read_text() == "old"
    assert "cannot be cleaned up: " in caplog.text


def test_an_empty_workspace_of_a_run_that_was_killed_at_once_goes(tmp_path: Path) -> None:
    (tmp_path / f".out.writing-{this_host()}-{this_boot()}-1-0123abcd").mkdir()
    finish_killed_runs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_workspace_that_another_run_takes_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its lock it looks like one."""
    opened, made = os.open, []

    def meddling(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and len(made) < 2:
            made.append(path)
            if len(made) == 1:
                path.parent.rmdir()
            else:
                number = opened(path, flags, mode)
                path.unlink()
                path.parent.rmdir()
                return number
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", meddling)
    workspace = make_workspace(tmp_path, "out")
    assert len(made) == 2 and [workspace.path] == list(tmp_path.iterdir())
    workspace.remove()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_was_made_after_a_kill_is_kept(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run was killed between setting the old aside and giving the new its name."""
    final = tmp_path / "out"
    workspace = make_workspace(tmp_path, "out")
    for place, text in ((NEW, "new"), (OLD, "old")):
        thing = workspace.path / place / "out"
        if kind == "directory":
            thing.mkdir()
        (thing / "file" if kind == "directory" else thing).write_text(text)
    (workspace.path / READY).write_text("replace what is there\n1")
    os.close(workspace.lock)
    made = final / "file" if kind == "directory" else final
    made.parent.mkdir(exist_ok=True)
    made.write_text("the user's")
    finish_killed_runs(tmp_path)
    assert made.read_text() == "the user's" and "was made after the kill" in caplog.text
    assert sorted(path.name for path in workspace.path.iterdir()) == [LOCK, NEW, OLD, READY]


def test_a_mark_leads_to_workspaces_alone(tmp_path: Path) -> None:
    """A forged mark, as by one who may write beside an artifact, moves and removes nothing else."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    (elsewhere / NEW).mkdir(parents=True)
    (elsewhere / LOCK).touch()
    (elsewhere / NEW / "kept").write_text("kept")
    (elsewhere / "also").write_text("also")
    path = leftover(place)
    (path / READY).write_text(f"replace what is there\n2\n{json.dumps(str(elsewhere))}")
    finish_killed_runs(place)
    assert sorted(entry.name for entry in elsewhere.rglob("*")) == ["also", "kept", LOCK, NEW]
    assert [entry.name for entry in place.iterdir()] == ["out"]


def test_marks_that_follow_each_other_come_to_an_end(tmp_path: Path) -> None:
    first, second = leftover(tmp_path, process=1), leftover(tmp_path, process=2)
    for one, other in ((first, second), (second, first)):
        (one / READY).write_text(f"as the first one says\n{json.dumps(str(other))}")
    finish_killed_runs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_mark_that_leads_back_comes_to_an_end(tmp_path: Path) -> None:
    """Forged, to a directory beside it or to a file: taken for a leftover of nothing."""
    for name in ("led", "file"):
        place = tmp_path / name
        place.mkdir()
        path = leftover(place)
        led = place / "elsewhere"
        if name == "led":
            led.mkdir()
            (led / READY).write_text("replace what is there\n1")
        else:
            led.touch()
        (path / READY).write_text(f"as the first one says\n{json.dumps(str(led))}")
        finish_killed_runs(place)
        assert [entry.name for entry in place.iterdir()] == ["elsewhere"]


def test_marks_that_lead_in_a_circle_of_directories_come_to_an_end(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    paths = {name: leftover(tmp_path / name, process=number) for number, name in enumerate(("a", "b"))}
    first = {name: leftover(tmp_path / name, process=9) for name in ("a", "b")}
    for one, other in (("a", "b"), ("b", "a")):
        (paths[one] / READY).write_text(f"as the first one says\n{json.dumps(str(first[other]))}")
        (first[one] / READY).write_text("nonsense")
    finish_killed_runs(tmp_path / "a")
