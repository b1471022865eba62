"""The artifact directory: what a conversion writes, and what every runtime opens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lxmert_export.artifact.manifest import Manifest
from lxmert_export.artifact.targets import TARGETS, Target
from lxmert_export.errors import PACKAGE, ArtifactError, LxmertExportError
from lxmert_export.files.converted_files import MANIFEST_FILE, converted_kind, holder_of
from lxmert_export.files.hashing import sha256
from lxmert_export.files.path_spelling import check_spelling
from lxmert_export.parity.report import ParityReport

# The model files of each target. SAVED_MODEL is a directory.
ONNX_FILE, ONNX_DATA_FILE = "model.onnx", "model.onnx.data"
SAVED_MODEL, KERAS_FILE = "saved_model", "model.keras"
TFLITE_FILE = "model.tflite"
ENGINE_FILE = "model.engine"
# The status of an engine that was never run; the reason follows in brackets.
NOT_RUN = "built, not run"
WEIGHTLESS = f"{NOT_RUN} (it holds no weights): refit it first"
GOLDEN_FILE = "golden.safetensors"
# A value of the manifest's option `quantization`: such an artifact is right only for inputs like its calibration inputs.
FULL_INTEGER = "full-integer"


@dataclass(frozen=True)
class Artifact:
    """An artifact directory whose manifest has been read.

    ``name`` is its name in reports. ``report`` is the report of its parity gate; None if the artifact was opened from disk.
    """

    path: Path
    manifest: Manifest
    name: str
    report: ParityReport | None = None

    def file(self, name: str) -> Path:
        """Returns the path of one of its files."""
        return self.path / name

    @property
    def target(self) -> Target:
        """The row of its target in ``TARGETS``. ``ArtifactError``: this version does not know the target."""
        name = self.manifest.target
        if name not in TARGETS:
            raise ArtifactError(
                f"{self.path}: this version does not know its target {name!r}; it knows {', '.join(TARGETS)}"
            )
        return TARGETS[name]

    @property
    def fp32_islands(self) -> list[str]:
        """The names of the nodes in float32 after a search (``fp32_islands="auto"``); empty with the standard islands."""
        return list(self.manifest.options.get("fp32_islands", ()))

    @property
    def weights_size(self) -> int:
        """The bytes of an ONNX artifact's weights; of its whole file if they are in it."""
        files = self.manifest.files
        return int(files.get(ONNX_DATA_FILE, files[ONNX_FILE])["bytes"])

    @property
    def is_calibrated(self) -> bool:
        """Whether it is right only for inputs like its calibration inputs."""
        return self.manifest.options.get("quantization") == FULL_INTEGER

    @property
    def is_engine(self) -> bool:
        """Whether it is a TensorRT engine. Only its GPU can read it; its layers were counted when it was built."""
        return self.manifest.target == "tensorrt"

    @property
    def is_keras(self) -> bool:
        """Whether the manifest says that it is a ``.keras`` file rather than a SavedModel."""
        return self.manifest.options.get("format") == "keras"

    def check_files(self) -> None:
        """Compares the sizes and hashes of all files with the manifest. ``ArtifactError`` names all missing or changed files."""
        faults = []
        for name, facts in self.manifest.files.items():
            if not _stays_inside(name) or self.file(name).is_symlink():
                faults.append(f"{name} leads out of the directory")
            elif not self.file(name).is_file():
                faults.append(f"{name} is missing")
            elif (size := self.file(name).stat().st_size) != facts["bytes"]:
                faults.append(f"{name} has {size} bytes instead of {facts['bytes']}")
            elif sha256(self.file(name)) != facts["sha256"]:
                faults.append(f"{name} has changed since it was written (sha256 differs)")
        # Some runtimes read a whole directory: they would also read a file that was added later.
        strays = {
            path.relative_to(self.path).as_posix()
            for directory in self.target.directories
            for path in self.file(directory).rglob("*")
            if not path.is_dir()
        }
        faults += [f"{name} is not listed in its manifest" for name in sorted(strays - set(self.manifest.files))]
        if faults:
            raise ArtifactError(f"{self.path}: {'; '.join(faults)}. Export it again, or copy it again from its source")


def is_artifact(path: str | Path) -> bool:
    """Whether a path is an artifact directory: it holds a ``manifest.json``."""
    return (Path(path) / MANIFEST_FILE).is_file()


def open_artifact(path: str | Path) -> Artifact:
    """Reads the manifest of an artifact directory, and checks the size and hash of every file.

    ``ArtifactError``: not an artifact directory, a manifest that cannot be read, or files that are missing or changed.
    """
    check_spelling(path)
    directory = Path(path)
    file = directory / MANIFEST_FILE
    if not file.is_file():
        refuse_converted(directory)
        raise ArtifactError(
            f"{path}: not an artifact directory (no {MANIFEST_FILE}); '{PACKAGE} onnx', 'tensorflow', 'tflite' and 'tensorrt' "
            "write such directories"
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
    """``ArtifactError``: a path is a converted model, or a file of an artifact. The message names the artifact directory."""
    file = Path(path)
    holder = holder_of(file)
    kind = converted_kind(file) or ("a part of an artifact" if holder else None)
    if kind is None:
        return
    mend = f"; name the directory that holds it: {holder}" if holder else f" (there is no {MANIFEST_FILE} with it)"
    raise ArtifactError(f"{path}: is {kind}, not an artifact directory{mend}")


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
