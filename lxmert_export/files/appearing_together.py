"""Files and directories that appear together, each whole, or not at all: through errors, interrupts and kills.

All are written under temporary names first and flushed to the disk; then adjacent renames give them their names. After an
error or an interrupt everything is as before. A run that was killed before the first rename has changed nothing, and the next
run that writes into the same directory forgets it; one that was killed between two renames is finished by that run, in its other
directories, too.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lxmert_export.files.listing import entries_below, files_below
from lxmert_export.files.workspaces import (
    NEW,
    OLD,
    READY,
    READY_SOON,
    Workspace,
    is_workspace,
    left_workspace,
    left_workspaces,
    make_workspace,
)
from lxmert_export.interrupts import raise_if_stopped

LOGGER = logging.getLogger(__name__)

# The lines of READY: what to do with what is there, how many things the run wrote, and the run's workspaces in other directories.
# Those have another line, and the first workspace.
REPLACING, KEEPING, FOLLOWING = "replace what is there", "keep what is there", "as the first one says"


@contextmanager
def appearing_together(
    *finals: Path, overwrite: bool, needed: int = 0, last_check: Callable[[], None] = lambda: None
) -> Iterator[list[Path]]:
    """Yields a path to write to for each final path; what stands there when the block ends moves to its final path.

    Paths are absolute, and their directories exist. Without ``overwrite`` nothing that exists is replaced, though another run
    wrote it a moment ago. ``needed``: the number of bytes that will be written at least; if the first path's disk has fewer,
    that is an error before anything is written. ``last_check`` is called when all is on the disk and nothing has its name yet;
    if it raises, nothing is changed. ``OSError``: something cannot be written; nothing was changed.
    """
    workspaces: dict[Path, Workspace] = {}
    try:
        for final in finals:
            if final.parent not in workspaces:
                workspaces[final.parent] = make_workspace(final.parent, final.name)
        if needed:
            check_space(finals[0].parent, needed)
        yield [workspaces[final.parent].path / NEW / final.name for final in finals]
        for workspace in workspaces.values():
            _sync(workspace.path / NEW)
        raise_if_stopped()
        last_check()
        if workspaces:
            _commit(list(workspaces.values()), overwrite=overwrite)
    finally:
        for workspace in workspaces.values():
            if workspace.is_ready:  # what was there could not be put back: the next run finishes this one
                workspace.let_go()
            else:
                workspace.remove()


def finish_killed_runs(directory: Path) -> None:
    """Finishes what killed runs were renaming in a directory, and elsewhere, and removes what they had half written there."""
    _finish_runs(directory, frozenset())


def _finish_runs(directory: Path, begun: frozenset[Path]) -> None:
    """``begun``: the directories from which marks led here. A mark that leads back to one of them is forged."""
    begun |= {directory}
    for workspace in left_workspaces(directory):
        try:
            if workspace.is_ready:
                first, *lines = (workspace.path / READY).read_text(encoding="ascii").splitlines()
                if first == FOLLOWING and _leads(leader := Path(json.loads(lines[0]))) and leader.parent not in begun:
                    workspace.let_go()
                    _finish_runs(leader.parent, begun)
                    continue
                if first != FOLLOWING:  # else its run was killed before it began, or after its end
                    _finish(workspace, first == REPLACING, *lines)
            workspace.remove()
        except (OSError, ValueError, TypeError) as error:
            workspace.let_go()
            LOGGER.warning("%s: was left by a killed run, and cannot be cleaned up: %s", workspace.path, error)


def _leads(path: Path) -> bool:
    """Whether a path is the first workspace of a run whose renames have begun. One that leads to a follower is forged."""
    try:
        return is_workspace(path) and (path / READY).read_text(encoding="ascii").splitlines()[:1] != [FOLLOWING]
    except FileNotFoundError:
        return False


def _finish(first: Workspace, overwrite: bool, count: str, *others: str) -> None:
    """Gives what a killed run wrote its names, unless the run had given none yet."""
    found = [left_workspace(Path(json.loads(other))) for other in others]
    following = [workspace for workspace in found if workspace is not None]
    try:
        if not _have_changed_nothing([first, *following], int(count)):
            for workspace in (first, *following):
                for name in workspace.names:
                    _refuse_made_since(workspace, name)
                    with suppress(FileExistsError):
                        _place(workspace, name, overwrite=overwrite)
                sync_entries(workspace.parent)
    except BaseException:
        for workspace in following:
            workspace.let_go()
        raise
    for workspace in following:
        workspace.remove()


@contextmanager
def directory_made(directory: Path, mode: int = 0o777) -> Iterator[None]:
    """Makes a directory, and those above it, if they are not there; removes them again if what follows fails."""
    missing = [above for above in (directory, *directory.parents) if not above.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=mode)
        yield
    except BaseException:
        for above in missing:
            with suppress(OSError):  # another run may use it by now
                above.rmdir()
        raise


def check_space(directory: Path, needed: int) -> None:
    """``OSError``: fewer than ``needed`` bytes are free on the disk of a directory."""
    disk = shutil.disk_usage(directory)
    if disk.total and disk.free < needed:  # some file systems do not tell their size
        what = f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes are needed and {disk.free:,} are free"
        raise OSError(errno.ENOSPC, what)


def _commit(workspaces: Sequence[Workspace], *, overwrite: bool) -> None:
    """Gives everything its final name. On an error everything is put back."""
    things = [(workspace, name) for workspace in workspaces for name in workspace.names]
    first, *others = workspaces
    try:
        for workspace in others:
            _write_mark(workspace, FOLLOWING, _spelled(first))
        _write_mark(first, REPLACING if overwrite else KEEPING, str(len(things)), *map(_spelled, others))
        for workspace, name in things:
            _place(workspace, name, overwrite=overwrite)
    except BaseException:
        for workspace, name in reversed(things):
            _put_back(workspace, name)
        for workspace in workspaces:
            (workspace.path / READY).unlink(missing_ok=True)
        raise
    for workspace in workspaces:
        sync_entries(workspace.parent)
    for workspace in (*others, first):
        with suppress(OSError):  # all have their names: what is left is for the next run to clean up
            (workspace.path / READY).unlink()


def _place(workspace: Workspace, name: str, *, overwrite: bool) -> None:
    """Gives one new thing its final name; what it replaces is set aside. May be done again after a kill at any point."""
    new, old, final = workspace.path / NEW / name, workspace.path / OLD / name, workspace.parent / name
    if os.path.lexists(final) and _is_directory(final) != _is_directory(new):
        code = errno.EISDIR if _is_directory(final) else errno.ENOTDIR
        raise OSError(code, os.strerror(code), str(final))
    if not overwrite and not _is_directory(new):
        _rename_file_if_none_is_there(new, final)
        return
    if overwrite and os.path.lexists(final) and not os.path.lexists(old):
        _set_aside(final, old)
    try:
        new.replace(final)  # a directory replaces none but an empty one
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, error.strerror, str(final)) from error
        raise


def _set_aside(final: Path, old: Path) -> None:
    """Keeps the old thing. A file gets a second name, so that its place is never empty."""
    if _is_directory(final):
        final.rename(old)
        return
    try:
        os.link(final, old, follow_symlinks=False)
    except (OSError, NotImplementedError):  # not every file system, nor Windows, has such second names
        final.rename(old)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _rename_file_if_none_is_there(new: Path, final: Path) -> None:
    """``FileExistsError``: something is there. A rename would replace it, a second name does not."""
    try:
        os.link(new, final, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # without second names another run may come between
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        new.rename(final)
    else:
        new.unlink()


def _have_changed_nothing(workspaces: Sequence[Workspace], count: int) -> bool:
    """Whether a run of ``count`` things was killed before its first rename."""
    things = [(workspace, name) for workspace in workspaces for name in workspace.names]
    old = [thing for workspace in workspaces for thing in (workspace.path / OLD).iterdir()]
    named = [name for workspace, name in things if _is_same(workspace.path / NEW / name, workspace.parent / name)]
    return len(things) == count and not old and not named


def _refuse_made_since(workspace: Workspace, name: str) -> None:
    """``FileExistsError``: what stands at a final name, from which the old thing was set aside, was made after the kill."""
    new, old, final = workspace.path / NEW / name, workspace.path / OLD / name, workspace.parent / name
    if os.path.lexists(final) and os.path.lexists(old) and not (_is_same(old, final) or _is_same(new, final)):
        raise FileExistsError(errno.EEXIST, "was made after the kill; move it away, and run again", str(final))


def _is_same(new: Path, final: Path) -> bool:
    return final.exists() and final.samefile(new)


def _put_back(workspace: Workspace, name: str) -> None:
    """Takes back what may have its final name already, and gives the old thing, if it was set aside, its own."""
    new, old, final = workspace.path / NEW / name, workspace.path / OLD / name, workspace.parent / name
    if not new.exists():
        final.rename(new)
    elif _is_same(new, final):
        final.unlink()
    if os.path.lexists(old):
        old.replace(final)


def _write_mark(workspace: Workspace, *lines: str) -> None:
    written = workspace.path / READY_SOON
    with written.open("w", encoding="ascii") as file:
        file.write("\n".join(lines))
        file.flush()
        os.fsync(file.fileno())
    written.rename(workspace.path / READY)  # whole, or not there
    sync_entries(workspace.path)


def _spelled(workspace: Workspace) -> str:
    """A workspace's path in one line of ASCII."""
    return json.dumps(str(workspace.path))


def sync_entries(directory: Path) -> None:
    """Flushes a directory itself, so that the names in it are on the disk.

    Windows, and some network file systems, have no such call: there the rename is on the disk when the system writes it.
    """
    with suppress(OSError):
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _sync(directory: Path) -> None:
    """Flushes every file and every directory to the disk: a full disk is noticed before anything old is touched.

    Every file gets the mode that the user's umask gives new files: safetensors makes its files readable by the owner only.
    """
    mode = directory.stat().st_mode & 0o666
    for file in files_below(directory):
        file.chmod(mode)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    for folder in (directory, *(path for path in entries_below(directory) if path.is_dir())):
        sync_entries(folder)
