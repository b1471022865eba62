"""The artifact directory: what a conversion writes, and what every runtime opens. Self-describing and self-checking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, Self, get_args

from lxmert_export.config import LxmertConfig
from lxmert_export.converted_files import MANIFEST_FILE, converted_kind, holder_of
from lxmert_export.errors import PACKAGE, ArtifactError, LxmertExportError
from lxmert_export.hub import TOKENIZER_FILES
from lxmert_export.parity.report import ParityReport
from lxmert_export.signature import Precision, Signature, Task
from lxmert_export.spelling import check_spelling

FORMAT_VERSION = 1
TARGETS = ("onnx", "tensorflow", "tflite", "tensorrt")
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
TOOLS = (
    PACKAGE, "torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "tensorflow", "tensorflow-cpu", "keras",
    "ai-edge-litert", "tensorrt-rtx", "tensorrt", "polygraphy", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says of an artifact.

    ``checkpoint`` is {dialect, name, sha256}; ``options`` are the choices of the conversion (opset, …); ``files`` is
    {name: {sha256, bytes}}; ``parity`` is the gate's verdict and figures, or None where the gate was skipped.
    """

    target: str
    precision: Precision
    task: Task | str
    config: LxmertConfig
    signature: Signature
    checkpoint: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``manifest.json`` holds it."""
        return {
            "format": FORMAT_VERSION,
            "target": self.target,
            "precision": self.precision,
            "task": self.task,
            "config": self.config.to_dict(),
            "checkpoint": dict(self.checkpoint),
            "signature": self.signature.to_dict(),
            "options": dict(self.options),
            "files": {name: dict(facts) for name, facts in sorted(self.files.items())},
            "tools": dict(self.tools),
            "parity": None if self.parity is None else dict(self.parity),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` wrote; ``KeyError``, ``TypeError`` or ``ConfigError`` where it is something else."""
        if values["format"] != FORMAT_VERSION:
            raise ArtifactError(f"manifest format {values['format']!r} is not {FORMAT_VERSION}: use a matching version")
        if values["precision"] not in get_args(Precision):
            raise ArtifactError(f"{values['precision']!r} is no precision of this version")
        return cls(
            target=values["target"],
            precision=values["precision"],
            task=values["task"],
            config=LxmertConfig.from_dict(values["config"]),
            signature=Signature.from_dict(values["signature"]),
            checkpoint=values["checkpoint"],
            options=values["options"],
            files={name: {"sha256": str(f["sha256"]), "bytes": int(f["bytes"])} for name, f in values["files"].items()},
            tools=values["tools"],
            parity=values["parity"],
        )


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
        # TensorFlow reads whatever lies in its directory, so that nothing may lie there but what was written.
        strays = {p.relative_to(self.path).as_posix() for p in self.file(SAVED_MODEL).rglob("*") if not p.is_dir()}
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


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Hashes every file of a directory, writes ``manifest.json`` beside them, and returns it with all that was added."""
    names = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    facts = {
        name: {"sha256": sha256(directory / name), "bytes": (directory / name).stat().st_size}
        for name in names
        if name != MANIFEST_FILE
    }
    values = {**manifest.to_dict(), "files": facts, "tools": tool_versions(TOOLS)}
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return Manifest.from_dict(json.loads(text))


def tool_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name; what is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
