"""A directory that appears whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lxmert_export.errors import ArtifactError
from lxmert_export.files.converted_files import manifest_of
from lxmert_export.files.path_spelling import check_spelling
from lxmert_export.option_names import option

# Two kinds of temporary directories. Both stand beside the final directory, so that no rename crosses a file system.
#   .NAME.writing-PID-…    the new directory while it is filled
#   .NAME.replaced-PID-…   the old directory, set aside while the new one is renamed into its place
WRITING, REPLACED = "writing", "replaced"
_MADE_HERE: set[str] = set()  # the temporary names that this process has used
# A directory with a config.json and a file of one of these suffixes is a checkpoint.
WEIGHT_SUFFIXES = frozenset((".safetensors", ".pth", ".bin", ".h5"))


@contextmanager
def atomic_directory(final: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty directory beside ``final``. On success it becomes ``final``; on failure nothing has changed.

    With ``overwrite`` an existing artifact or checkpoint is replaced: it is set aside, and removed on success or restored on
    failure. The remains of a killed run are cleaned up first, and an old directory that it had set aside is restored.
    ``ArtifactError``: ``final`` exists, or cannot be written.
    """
    final = final.absolute()
    check_spelling(final)
    try:
        _recover(final)
        refuse_existing(final, overwrite=overwrite)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(final, WRITING)
        temporary.mkdir()
    except OSError as error:
        raise ArtifactError(f"{final}: cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        _sync(temporary)
        refuse_existing(final, overwrite=overwrite)  # another run may have finished meanwhile
        _put_in_place(temporary, final, overwrite=overwrite)
    except OSError as error:
        raise ArtifactError(f"{final}: cannot be written: {error.strerror or error}; nothing was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(final: Path, *, overwrite: bool) -> None:
    """``ArtifactError``: a directory exists and ``overwrite`` is False or may not replace it, or it cannot be made."""
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise ArtifactError(f"{final}: exists and is not a directory; choose another output (-o)")
    if final.resolve() == Path.cwd():
        raise ArtifactError(
            f"{final}: is the current directory, as an empty name is, too; it is never replaced: choose another output (-o)"
        )
    if final.exists() and not overwrite:
        raise ArtifactError(
            f"{final}: exists already; {option('overwrite', True)} replaces it, another name (-o) keeps it"
        )
    if not final.exists():
        above = next(parent for parent in final.absolute().parents if parent.exists())
        if not above.is_dir():
            raise ArtifactError(f"{final}: cannot be written: {above} is not a directory; choose another output (-o)")
        return
    held = list(final.iterdir())
    is_checkpoint = (final / "config.json").is_file() and any(entry.suffix in WEIGHT_SUFFIXES for entry in held)
    if held and not is_checkpoint and manifest_of(final) is None:
        raise ArtifactError(
            f"{final}: holds no artifact and no checkpoint, so {option('overwrite', True)} does not replace it; "
            "choose another output (-o), or remove it yourself"
        )


def refuse_source(source: object, final: Path) -> None:
    """``ArtifactError``: the output directory is, or holds, the file or directory that is being converted."""
    if not isinstance(source, str | Path) or not Path(source).exists():
        return
    # Two places, because a file in the hub's cache is a link out of its directory.
    places = (Path(source).absolute(), Path(source).resolve())
    if final.resolve() in {above.resolve() for place in places for above in (place, *place.parents)}:
        raise ArtifactError(
            f"{final}: holds {source}, which is being converted, so it is not replaced; choose another output (-o)"
        )


def _put_in_place(temporary: Path, final: Path, *, overwrite: bool) -> None:
    """Renames the new directory to its final name. Without ``overwrite`` nothing is set aside for it: a directory that
    another run has put there since the last check stays, because a rename replaces empty directories only.
    """
    aside = _beside(final, REPLACED)
    if overwrite and final.exists():
        final.rename(aside)
    try:
        temporary.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    _sync_entries(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _recover(final: Path) -> None:
    """Restores the directory that a killed run had set aside, and removes what it had half written."""
    pattern = re.compile(re.escape(f".{final.name}.") + rf"({WRITING}|{REPLACED})-(\d+)-\w+")
    if not final.parent.is_dir():
        return
    for leftover in sorted(final.parent.iterdir()):
        match = pattern.fullmatch(leftover.name)
        if match is None or leftover.name in _MADE_HERE or _is_running(int(match[2])):
            continue
        if match[1] == REPLACED and not final.exists():
            leftover.rename(final)
        else:
            shutil.rmtree(leftover)


def _beside(final: Path, state: str) -> Path:
    path = final.with_name(f".{final.name}.{state}-{os.getpid()}-{secrets.token_hex(4)}")
    _MADE_HERE.add(path.name)
    return path


def _is_running(process: int) -> bool:
    """Whether another process of this number runs. In a container every run has the number 1: ours is not another."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_entries(directory: Path) -> None:
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
    """Flushes every file and every directory to the disk: a full disk is noticed before the old directory is touched.

    Every file gets the mode that the user's umask gives new files: safetensors makes its files readable by the owner only.
    """
    mode = directory.stat().st_mode & 0o666
    for file in directory.rglob("*"):
        if file.is_file():
            file.chmod(mode)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        _sync_entries(folder)
