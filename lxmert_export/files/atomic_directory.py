"""A directory that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lxmert_export.errors import ArtifactError
from lxmert_export.files.appearing_together import appearing_together, directory_made, finish_killed_runs
from lxmert_export.files.path_spelling import check_spelling
from lxmert_export.files.replacing import Kind, check_replaceable
from lxmert_export.option_names import option


@contextmanager
def atomic_directory(final: Path, *, overwrite: bool, needed: int = 0, kind: Kind = "artifact") -> Iterator[Path]:
    """Yields an empty directory beside ``final``. On success it becomes ``final``; on failure nothing has changed.

    With ``overwrite`` an existing output of the same ``kind`` is replaced, if nothing else lies in it. What killed
    runs left is finished or removed first.
    ``needed``: the bytes that will be written at least. ``ArtifactError``: ``final`` exists, or cannot be written.
    """
    with directory_and_files(final, overwrite=overwrite, needed=needed, kind=kind) as (temporary,):
        yield temporary


@contextmanager
def directory_and_files(
    final: Path, *files: Path, overwrite: bool, needed: int = 0, kind: Kind = "artifact"
) -> Iterator[list[Path]]:
    """Does the same for a directory and files beside it, as one unit. Yields the directory, and a path for each file."""
    final = final.absolute()
    check_spelling(final)
    with written_whole(final):
        refuse_existing(final, overwrite=overwrite, kind=kind)
        again = partial(
            _refuse, final, overwrite=overwrite, kind=kind
        )  # somebody may have put something there meanwhile
        with (
            directory_made(final.parent),
            appearing_together(final, *files, overwrite=overwrite, needed=needed, last_check=again) as (
                temporary,
                *others,
            ),
        ):
            temporary.mkdir()
            yield [temporary, *others]


@contextmanager
def written_whole(final: Path) -> Iterator[None]:
    """``ArtifactError`` instead of ``OSError``: something cannot be written, and so nothing was."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{final}: cannot be written: {error.strerror or error}; nothing was changed") from error


def refuse_existing(final: Path, *, overwrite: bool, kind: Kind = "artifact") -> None:
    """Finishes what killed runs left beside a directory.

    ``ArtifactError``: the directory exists and ``overwrite`` is False or may not replace it, or it cannot be made.
    """
    finish_killed_runs(final.absolute().parent)
    _refuse(final, overwrite=overwrite, kind=kind)


def _refuse(final: Path, *, overwrite: bool, kind: Kind) -> None:
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
    check_replaceable(final, kind)


def refuse_source(source: object, final: Path) -> None:
    """``ArtifactError``: the output directory is, or holds, the file or directory that is being converted."""
    if not isinstance(source, str | Path) or not Path(source).exists():
        return
    # Two places, because a file in the hub's cache is a link out of its directory.
    places = (Path(source).absolute(), Path(source).resolve())
    if final.resolve() in {above.resolve() for place in places for above in (place, *place.parents)}:
        what = "is the source" if final.resolve() == Path(source).resolve() else f"holds the source, {source}"
        raise ArtifactError(f"{final}: {what}, so it is not replaced; choose another output (-o)")
