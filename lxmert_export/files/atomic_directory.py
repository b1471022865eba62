"""A directory that appears whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxmert_export.errors import ArtifactError
from lxmert_export.files.converted_files import manifest_of
from lxmert_export.files.path_spelling import check_spelling

# Both stand beside the final directory, so that renaming never crosses a file system: `.NAME.writing-PID-…` is being
# filled, `.NAME.replaced-PID-…` is the old one, set aside for the instant in which the new one takes its place.
WRITING, REPLACED = "writing", "replaced"
# What lies beside a config.json in a checkpoint.
WEIGHT_SUFFIXES = frozenset((".safetensors", ".pth", ".bin", ".h5"))


@contextmanager
def atomic_directory(final: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty directory beside ``final``; on success it becomes ``final``, on any failure nothing has changed.

    With ``overwrite`` an existing ``final`` is set aside, restored on failure, removed on success; one that holds no artifact
    and no checkpoint is not replaced. What a killed run left is tidied up first: an old directory that was set aside comes
    back. ``ArtifactError``: ``final`` exists, or cannot be written.
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
        _put_in_place(temporary, final)
    except OSError as error:
        raise ArtifactError(f"{final}: cannot be written: {error.strerror or error}; nothing was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(final: Path, *, overwrite: bool) -> None:
    """``ArtifactError`` where a directory may not be written: it exists, or is not one that ``overwrite`` may replace."""
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise ArtifactError(f"{final}: exists and is not a directory; choose another output")
    if final.exists() and not overwrite:
        raise ArtifactError(
            f"{final}: exists already; overwrite=True (--overwrite) replaces it, another name (-o) keeps it"
        )
    if not final.exists():
        above = next(parent for parent in final.absolute().parents if parent.exists())
        if not above.is_dir():
            raise ArtifactError(f"{final}: cannot be written: {above} is not a directory; choose another output")
        return
    if final.resolve() == Path.cwd():
        raise ArtifactError(f"{final}: is the current directory, which is not replaced; name another output")
    held = list(final.iterdir())
    is_checkpoint = (final / "config.json").is_file() and any(entry.suffix in WEIGHT_SUFFIXES for entry in held)
    if held and not is_checkpoint and manifest_of(final) is None:
        raise ArtifactError(
            f"{final}: holds no artifact and no checkpoint, so that overwrite=True (--overwrite) does not replace it; "
            "name another output, or remove it yourself"
        )


def refuse_source(source: object, final: Path) -> None:
    """``ArtifactError`` where an output would take the place of what it is made from, where that is a path."""
    if not isinstance(source, str | Path) or not Path(source).exists():
        return
    # a file of the hub's cache is a link out of its directory
    places = (Path(source).absolute(), Path(source).resolve())
    if final.resolve() in {above.resolve() for place in places for above in (place, *place.parents)}:
        raise ArtifactError(
            f"{final}: holds what is converted, {source}, and is not replaced; name another output (-o)"
        )


def _put_in_place(temporary: Path, final: Path) -> None:
    aside = _beside(final, REPLACED)
    if final.exists():
        final.rename(aside)
    try:
        temporary.rename(final)
    except BaseException:
        if aside.exists():
            aside.rename(final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _recover(final: Path) -> None:
    """Brings back what a killed run had set aside, and removes what it had half written."""
    pattern = re.compile(re.escape(f".{final.name}.") + rf"({WRITING}|{REPLACED})-(\d+)-\w+")
    if not final.parent.is_dir():
        return
    for leftover in sorted(final.parent.iterdir()):
        match = pattern.fullmatch(leftover.name)
        if match is None or _is_running(int(match[2])):
            continue
        if match[1] == REPLACED and not final.exists():
            leftover.rename(final)
        else:
            shutil.rmtree(leftover)


def _beside(final: Path, state: str) -> Path:
    return final.with_name(f".{final.name}.{state}-{os.getpid()}-{secrets.token_hex(4)}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(directory: Path) -> None:
    """Flushes every file to the disk: a full one shows here, before the old directory is touched.

    All get the mode that the user's mask gives a new file: safetensors writes its own for the owner alone.
    """
    mode = directory.stat().st_mode & 0o666
    for file in directory.rglob("*"):
        if file.is_file():
            file.chmod(mode)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
