"""The hidden directory in which a run writes what will stand beside it, and how a later run tells that its run has ended.

    .NAME.writing-HOST-BOOT-PID-…/
        lock     locked (flock) while the run lives; the system lets go of it when the run ends, however it ends
        new/     what is written, under its final names
        old/     what the new takes the place of, set aside
        ready    is there from when all of new/ is on the disk until all of it has its place; of a run with several
                 workspaces that of the first counts, and the others' lead to it

A number of a process says nothing in another container or on another machine, so the lock alone tells. Locks are known to be
seen only on one machine: a leftover of another machine is never touched, and a line says that it is there.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.files.locks import Hold, are_known, hold, is_at

LOGGER = logging.getLogger(__name__)

LOCK, READY, NEW, OLD = "lock", "ready", "new", "old"
WORKSPACE = re.compile(r"\..*\.writing-(?P<host>[\w.]+)-(?P<boot>[0-9a-f]+)-\d+-[0-9a-f]{8}", re.DOTALL)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # one for a running system and all its containers
LONGEST_NAME, LONGEST_HOST = 100, 40  # of the parts of a workspace's name: a file's name has at most 255 bytes
ANY_HOST = "localhost"  # a name that many machines have
READY_SOON = "ready.new"  # while it is written
NOT_LOCKED = b"locks are not supported here"  # the contents of such a lock file


@dataclass(frozen=True)
class Workspace:
    """A workspace whose lock this run holds, in ``parent``."""

    path: Path
    lock: int

    @property
    def parent(self) -> Path:
        """The directory in which the final names stand."""
        return self.path.parent

    @property
    def is_ready(self) -> bool:
        """Whether all of it is on the disk and not all of it has its place; also if the disk does not tell."""
        try:
            (self.path / READY).stat()
        except OSError as error:
            return not isinstance(error, FileNotFoundError)
        return True

    @property
    def names(self) -> list[str]:
        """The names of what is written and has not its place yet."""
        return sorted(entry.name for entry in (self.path / NEW).iterdir())

    def remove(self) -> None:
        """Removes it with all that is in it. Its lock goes last: killed on the way, it is a leftover like others."""
        with suppress(OSError):
            (self.path / READY).unlink(missing_ok=True)
            (self.path / READY_SOON).unlink(missing_ok=True)
        for inner in (NEW, OLD):
            shutil.rmtree(self.path / inner, ignore_errors=True)
        if not are_known():  # Windows removes no file that is open
            self.let_go()
        with suppress(OSError):
            if not any((self.path / inner).exists() for inner in (NEW, OLD)):  # else the next run needs the lock
                (self.path / LOCK).unlink(missing_ok=True)
                self.path.rmdir()
        if are_known():
            self.let_go()

    def let_go(self) -> None:
        """Leaves it to the next run."""
        with suppress(OSError):
            os.close(self.lock)


def make_workspace(parent: Path, name: str) -> Workspace:
    """Makes the workspace for a file or directory ``name`` in ``parent``. ``OSError``: it cannot be made."""
    start = os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore")
    while True:
        path = parent / f".{start}.writing-{this_host()}-{this_boot()}-{os.getpid()}-{secrets.token_hex(4)}"
        path.mkdir()
        try:
            lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        except FileNotFoundError:  # another run took the empty directory for a leftover
            continue
        except OSError:
            path.rmdir()
            raise
        workspace = Workspace(path, lock)
        try:
            held = hold(lock)
            if held is Hold.UNSUPPORTED:
                os.write(lock, NOT_LOCKED)
            elif held is Hold.ANOTHERS or not is_at(lock, path / LOCK):  # the same, a moment later
                os.close(lock)
                continue
            for inner in (NEW, OLD):
                (path / inner).mkdir()
        except BaseException:
            workspace.remove()
            raise
        return workspace


def left_workspaces(parent: Path) -> Iterator[Workspace]:
    """Yields the workspaces in a directory whose runs have ended, each locked. Says which ones it cannot know about."""
    try:
        found = sorted(entry.path for entry in os.scandir(parent) if WORKSPACE.fullmatch(entry.name))
    except OSError:  # a directory that cannot be listed can still be written to
        return
    for path in map(Path, found):
        if (left := left_workspace(path)) is not None:
            yield left


def left_workspace(path: Path) -> Workspace | None:
    """Returns a workspace whose run has ended, locked; None if there is none, or it cannot be known. Says what cannot."""
    if not is_workspace(path):
        return None
    try:
        lock = os.open(path / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        with suppress(OSError):
            path.rmdir()  # a run was killed as it made or removed it; it is empty, or it stays
        return None
    if _has_ended(path, lock):
        return Workspace(path, lock)
    os.close(lock)
    return None


def is_set_aside(final: Path) -> bool:
    """Whether a run, alive or killed, has set something aside and has not given its name to the new one yet."""
    try:
        found = [entry.name for entry in os.scandir(final.parent) if WORKSPACE.fullmatch(entry.name)]
    except OSError:
        return False
    return not final.exists() and any((final.parent / name / OLD / final.name).exists() for name in found)


def is_workspace(path: Path) -> bool:
    """Whether a path is a workspace of this user: what others put there, or marks lead to, is nothing to act on."""
    try:
        found = path.lstat()
    except OSError:
        return False
    if not WORKSPACE.fullmatch(path.name) or not stat.S_ISDIR(found.st_mode):
        return False
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def this_host() -> str:
    """The name of this machine or container, in characters of a file's name."""
    return re.sub(r"[^\w.]", "_", socket.gethostname(), flags=re.ASCII)[:LONGEST_HOST] or ANY_HOST


def this_boot() -> str:
    """A number of this run of the operating system: the start of Linux' boot id, zeros elsewhere."""
    try:
        return BOOT_ID.read_text(encoding="ascii")[:8]
    except (OSError, ValueError):
        return "0" * 8


def _has_ended(path: Path, lock: int) -> bool:
    """Whether the run of a workspace has ended; if so, this run holds its lock now."""
    held = hold(lock)
    if held is Hold.ANOTHERS or not is_at(lock, path / LOCK):
        return False
    if held is Hold.UNSUPPORTED or os.read(lock, 1):
        reason = "its file system has no locks that tell whether its run has ended"
    elif not _is_of_this_machine(path.name):
        reason = f"it is of another machine ({_parts(path.name)['host']}), whose locks may not be seen here"
    else:
        return True
    LOGGER.warning("%s: was left by another run, and %s; remove it if that run has ended", path, reason)
    return False


def _is_of_this_machine(name: str) -> bool:
    """Whether a lock that is free here is free everywhere: the same system, maybe since started again, made it."""
    parts = _parts(name)
    same_system = parts["boot"] == this_boot() and set(parts["boot"]) != {"0"}
    return same_system or parts["host"] == this_host() != ANY_HOST


def _parts(name: str) -> dict[str, str]:
    match = WORKSPACE.fullmatch(name)
    assert match is not None
    return match.groupdict()
