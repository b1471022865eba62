"""The artifact directory: what a conversion writes, and what every runtime opens. Self-describing and self-checking."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lxmert_export.artifact.manifest import Manifest, sha256
from lxmert_export.artifact.targets import TARGETS, Target
from lxmert_export.errors import PACKAGE, ArtifactError, LxmertExportError
from lxmert_export.files.converted_files import MANIFEST_FILE, converted_kind, holder_of
from lxmert_export.files.hub import TOKENIZER_FILES
from lxmert_export.files.path_spelling import check_spelling
from lxmert_export.parity.report import ParityReport

# What each target's runtime opens; SAVED_MODEL is a directory.
ONNX_FILE, ONNX_DATA_FILE = "model.onnx", "model.onnx.data"
SAVED_MODEL, KERAS_FILE = "saved_model", "model.keras"
TFLITE_FILE = "model.tflite"
ENGINE_FILE = "model.engine"
# What is said of an engine that nothing has shown to compute anything.
NOT_RUN = "built, not run"  # and why
WEIGHTLESS = f"{NOT_RUN} (it holds no weights): refit it first"
GOLDEN_FILE = "golden.safetensors"
LABELS_FILE = "labels.json"
FULL_INTEGER = "full-integer"  # among `options`: the quantization that is right for inputs like its calibration's alone
# Carried over from the checkpoint's directory where they are known.
COMPANION_FILES = (*TOKENIZER_FILES, LABELS_FILE)


@dataclass(frozen=True)
class Artifact:
    """An artifact directory whose manifest has been read.

    ``name`` is what reports call it; ``report`` is its gate's, where it was written just now.
    """

    path: Path
    manifest: Manifest
    name: str
    report: ParityReport | None = None

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name

    @property
    def target(self) -> Target:
        """The row of its target. ``ArtifactError``: a target that this version does not know."""
        name = self.manifest.target
        if name not in TARGETS:
            raise ArtifactError(
                f"{self.path}: its target {name!r} is unknown to this version; it knows {', '.join(TARGETS)}"
            )
        return TARGETS[name]

    @property
    def fp32_islands(self) -> list[str]:
        """The nodes that were made float32 islands one by one; none where the islands are the usual ones."""
        return list(self.manifest.options.get("fp32_islands", ()))

    @property
    def is_calibrated(self) -> bool:
        """Whether it is right for inputs like its calibration's alone."""
        return self.manifest.options.get("quantization") == FULL_INTEGER

    @property
    def is_engine(self) -> bool:
        """Whether it is a TensorRT engine, which nothing can read or run but its GPU: what was built was counted then."""
        return self.manifest.target == "tensorrt"

    @property
    def is_keras(self) -> bool:
        """Whether a TensorFlow artifact is a ``.keras`` file rather than a SavedModel: as the manifest says, not the disk."""
        return self.manifest.options.get("format") == "keras"

    def check_files(self) -> None:
        """Compares sizes, then hashes, of all files; ``ArtifactError`` names all that are missing or changed at once."""
        faults = []
        for name, facts in self.manifest.files.items():
            if not _stays_inside(name) or self.file(name).is_symlink():
                faults.append(f"{name} leaves the directory")
            elif not self.file(name).is_file():
                faults.append(f"{name} is missing")
            elif (size := self.file(name).stat().st_size) != facts["bytes"]:
                faults.append(f"{name} has {size} bytes instead of {facts['bytes']}")
            elif sha256(self.file(name)) != facts["sha256"]:
                faults.append(f"{name} has changed since it was written (sha256 differs)")
        # A runtime that reads a whole directory would read what did not come with it, too.
        strays = {
            path.relative_to(self.path).as_posix()
            for directory in self.target.directories
            for path in self.file(directory).rglob("*")
            if not path.is_dir()
        }
        faults += [f"{name} did not come with it" for name in sorted(strays - set(self.manifest.files))]
        if faults:
            raise ArtifactError(f"{self.path}: {'; '.join(faults)}. Export it again, or copy it again from its source")


def is_artifact(path: str | Path) -> bool:
    """Whether a path is an artifact directory, rather than a checkpoint."""
    return (Path(path) / MANIFEST_FILE).is_file()


def open_artifact(path: str | Path) -> Artifact:
    """Reads the manifest of an artifact directory, and checks every file against it before any runtime sees a byte."""
    check_spelling(path)
    directory = Path(path)
    file = directory / MANIFEST_FILE
    if not file.is_file():
        refuse_converted(directory)
        raise ArtifactError(
            f"{path}: not an artifact directory (no {MANIFEST_FILE}), such as '{PACKAGE} onnx', 'tensorflow', 'tflite' or "
            "'tensorrt' writes"
        )
    try:
        manifest = Manifest.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, LxmertExportError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"{file}: cannot be read as a manifest: {reason}") from error
    artifact = Artifact(directory, manifest, name=directory.resolve().name)
    artifact.check_files()
    return artifact


def refuse_converted(path: str | Path) -> None:
    """``ArtifactError`` where a path is a converted model's file, or another of an artifact: it says which, and what to name."""
    file = Path(path)
    holder = holder_of(file)
    kind = converted_kind(file) or ("a part of an artifact" if holder else None)
    if kind is None:
        return
    mend = f"; name the one that it lies in: {holder}" if holder else f" (no {MANIFEST_FILE} came with it)"
    raise ArtifactError(f"{path}: is {kind}, not an artifact directory{mend}")


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
