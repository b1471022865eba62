"""What ``overwrite`` replaces: a directory that a command of the same kind wrote, if nothing else lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lxmert_export.errors import PACKAGE, ArtifactError, shortened
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.files.converted_files import MANIFEST_FILE, holder_of, manifest_of
from lxmert_export.files.listing import entries_below
from lxmert_export.option_names import option

# Exports, engines and bundles are artifacts, each with a manifest. ``convert`` and ``save_pretrained`` write checkpoints.
Kind = Literal["artifact", "checkpoint"]
HF_FILE, FINE_TUNED_FILE, PRETRAINED_FILE, TENSORFLOW_FILE = (
    "model.safetensors", "BEST.pth", "model_LXRT.pth", "tf_model.h5",
)  # fmt: skip
# A written checkpoint has its config and exactly one of these files of weights.
WRITTEN_WEIGHTS = (HF_FILE, FINE_TUNED_FILE, PRETRAINED_FILE, TENSORFLOW_FILE)
CHECKPOINT_CONFIG = "config.json"
TEXT_WITHOUT_ZEROS = 4096  # bytes at a file's start: weights, graphs and pictures have zeros there
OF_THE_SYSTEM = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))  # what file managers leave in directories


def check_replaceable(final: Path, kind: Kind) -> None:
    """``ArtifactError``: a directory holds no output of this kind, or files besides it; the message names them."""
    held = _files_in(final)
    if not held:
        return
    ours = _of_artifact(final) if kind == "artifact" else _of_checkpoint(held)
    replaces = option("overwrite", True)
    if ours is None:
        raise ArtifactError(
            f"{final}: holds no {kind} that {PACKAGE} wrote, but {shortened(held)}, so {replaces} does not replace it; choose "
            "another output (-o), or remove it yourself"
        )
    if others := [name for name in held if name not in ours]:
        raise ArtifactError(
            f"{final}: holds {shortened(others)} besides the {kind} that {PACKAGE} wrote, so {replaces} does not replace it; "
            f"move {'that file' if len(others) == 1 else 'those files'} away, or choose another output (-o)"
        )


def may_be_a_report(file: Path) -> bool:
    """Whether an existing file may be replaced without being asked for.

    No file of a checkpoint or of an artifact may, and none that is no text. ``OSError``: it cannot be read.
    """
    if file.name in {CHECKPOINT_CONFIG, MANIFEST_FILE, *COMPANION_FILES} or holder_of(file) is not None:
        return False
    with file.open("rb") as stream:
        return b"\0" not in stream.read(TEXT_WITHOUT_ZEROS)


def _files_in(directory: Path) -> list[str]:
    """The files below a directory, by their relative names, and links to directories; no link is followed."""
    found = [path for path in entries_below(directory) if path.is_symlink() or not path.is_dir()]
    return sorted(path.relative_to(directory).as_posix() for path in found if path.name not in OF_THE_SYSTEM)


def _of_artifact(directory: Path) -> set[str] | None:
    """The names that an artifact's manifest vouches for; None if the directory holds no artifact."""
    manifest = manifest_of(directory)
    return None if manifest is None else {MANIFEST_FILE, *manifest["files"]}


def _of_checkpoint(held: list[str]) -> set[str] | None:
    """The names of a written checkpoint; None if the directory holds none. Two files of weights are not of one run."""
    weights = [name for name in held if name in WRITTEN_WEIGHTS]
    if CHECKPOINT_CONFIG not in held or len(weights) != 1:
        return None
    return {CHECKPOINT_CONFIG, *weights, *COMPANION_FILES}
