"""The artifact directory: what a conversion writes, and what every runtime opens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lxmert_export.artifact.manifest import Manifest, read_manifest
from lxmert_export.artifact.targets import TARGETS, Runtime, Target
from lxmert_export.errors import PACKAGE, ArtifactError
from lxmert_export.files.appearing_together import finish_killed_runs
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.files.converted_files import MANIFEST_FILE, converted_kind, holder_of
from lxmert_export.files.hashing import sha256
from lxmert_export.files.listing import entries_below
from lxmert_export.files.path_spelling import check_spelling, stays_inside
from lxmert_export.files.workspaces import is_set_aside
from lxmert_export.option_names import option
from lxmert_export.parity.report import ParityReport
from lxmert_export.spec.halves import Half, Halves
from lxmert_export.spec.sample_inputs import SampleInputs, sample_inputs
from lxmert_export.spec.signature import ComputedPrecision

# The model files of each target. SAVED_MODEL is a directory.
ONNX_FILE, ONNX_DATA_FILE = "model.onnx", "model.onnx.data"
VISION_FILE, QUESTION_FILE = "vision.onnx", "question.onnx"  # the halves of a split model.onnx
HALF_FILES: dict[Half, str] = {"vision": VISION_FILE, "question": QUESTION_FILE}
SAVED_MODEL, KERAS_FILE = "saved_model", "model.keras"
TFLITE_FILE = "model.tflite"
ENGINE_FILE = "model.engine"
# The status of an engine that was never run; the reason follows in brackets.
NOT_RUN = "built, not run"
WEIGHTLESS = f"{NOT_RUN} (it holds no weights): refit it first"
GOLDEN_FILE = "golden.safetensors"
# Values of the manifest's option `quantization`: such an artifact is right only for inputs like its calibration inputs.
FULL_INTEGER, STATIC = "full-integer", "static"
IN_RUNTIME = "@"  # ARTIFACT@RUNTIME
# A directory that is replaced while it is opened is opened again, this often and after this many seconds.
ATTEMPTS, PAUSE = 5, 0.02
# Of a file: device, inode, time of its last change, size. A number of an inode is soon used again, and a copy keeps the time of
# its contents, so the time is that of the inode.
Identity = tuple[int, int, int, int]


@dataclass(frozen=True)
class Artifact:
    """An artifact directory whose manifest has been read.

    ``name`` is its name in reports. ``report`` is the report of its parity gate; None if the artifact was opened from disk.
    ``identity`` is that of its manifest as it was opened; None while the artifact is written. ``runtime_name`` is the runtime
    that is to run it; None: its target's own.
    """

    path: Path
    manifest: Manifest
    name: str
    report: ParityReport | None = None
    identity: Identity | None = field(default=None, repr=False, compare=False)
    runtime_name: str | None = None

    @contextmanager
    def unreplaced(self) -> Iterator[None]:
        """Reads files of it in this block. ``ArtifactError``: another run replaced the directory meanwhile."""
        try:
            yield
        except Exception as error:
            self._refuse_replaced(error)
            raise
        self._refuse_replaced()

    def file(self, name: str) -> Path:
        """Returns the path of one of its files, or of a directory of them.

        ``ArtifactError``: its manifest lists other files, so nothing vouches for this one. A manifest that lists none is
        that of an artifact which is being written.
        """
        listed = self.manifest.files
        if listed and name not in listed and not any(known.startswith(f"{name}/") for known in listed):
            raise ArtifactError(f"{self.path}: has no {name}: its manifest lists {', '.join(listed)}")
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
    def runtime(self) -> Runtime:
        """The runtime that is to run it."""
        return next((row for row in self.target.runtimes if row.name == self.runtime_name), self.target.runtime)

    @property
    def computed_precision(self) -> ComputedPrecision:
        """The precision in which its runtime computes it: its own, or that to which the runtime rounds."""
        precision = self.manifest.precision
        return self.runtime.rounds.get(precision, precision)

    def in_runtime(self, name: str | None) -> Artifact:
        """Returns the same artifact, to be run in a runtime; None: in its target's own.

        ``ArtifactError``: no such runtime runs artifacts of its target, or it does not know the file's operators.
        """
        target = self.target
        if name is None or name == target.runtime.name:
            return replace(self, runtime_name=None)
        if name not in (known := [runtime.name for runtime in target.runtimes]):
            raise ArtifactError(
                f"{self.path}: no runtime {name!r} runs {target.title} artifacts: choose {', '.join(known)}"
            )
        chosen = replace(self, runtime_name=name)
        if self.is_for_cuda and not chosen.runtime.takes_cuda_files:
            where = "cuda" if self.needs_cuda else f"{target.runtime.name} or {IN_RUNTIME}cuda"
            raise ArtifactError(
                f"{self.path}: was made with {option('optimize_for', 'cuda')}, for onnxruntime alone: export it again "
                f"without, or run it {IN_RUNTIME}{where}"
            )
        return replace(chosen, name=chosen.named(self.name))

    def named(self, name: str) -> str:
        """Returns a name with the runtime, if that is not its target's own."""
        return name if self.runtime_name is None else f"{name}{IN_RUNTIME}{self.runtime_name}"

    def drawn_inputs(self) -> SampleInputs:
        """Draws the families of inputs that it is judged on: all that fit, but for those that its export left out."""
        manifest = self.manifest
        return sample_inputs(manifest.signature, manifest.config, without=manifest.options.get("without_families", ()))

    @property
    def fp32_islands(self) -> list[str]:
        """The names of the nodes in float32 after a search (``fp32_islands="auto"``); empty with the standard islands."""
        return list(self.manifest.options.get("fp32_islands", ()))

    @property
    def float32_matmuls(self) -> list[str]:
        """The names of the nodes that may compute in float32 in an engine of it: its islands, or what int8 left in float32."""
        return list(self.manifest.options.get("float32_matmuls", ())) if self.is_static_int8 else self.fp32_islands

    @property
    def halves(self) -> Halves | None:
        """What the two halves of a split artifact take and give; None: it is whole."""
        split = self.manifest.options.get("split") if self.manifest.target == "onnx" else None
        return None if split is None else Halves.from_dict(split)

    @property
    def weights_size(self) -> int:
        """The bytes of an ONNX artifact's weights; of its whole file if they are in it."""
        files = self.manifest.files
        return int(files.get(ONNX_DATA_FILE, files[ONNX_FILE])["bytes"])

    @property
    def is_calibrated(self) -> bool:
        """Whether it is right only for inputs like its calibration inputs."""
        return self.manifest.options.get("quantization") in (FULL_INTEGER, STATIC)

    @property
    def is_static_int8(self) -> bool:
        """Whether it is an ONNX file whose matmuls with weights compute in int8, and the rest in float32."""
        return self.manifest.options.get("quantization") == STATIC

    @property
    def is_for_cuda(self) -> bool:
        """Whether it is an ONNX file of few operators, for onnxruntime's CUDA provider."""
        return self.manifest.options.get("optimize_for") == "cuda"

    @property
    def needs_cuda(self) -> bool:
        """Whether a CPU has no kernels for its operators: packed attentions, in half precision."""
        return self.is_for_cuda and self.manifest.precision != "fp32"

    @property
    def is_engine(self) -> bool:
        """Whether it is a TensorRT engine. Only its GPU can read it; its layers were counted when it was built."""
        return self.manifest.target == "tensorrt"

    @property
    def is_keras(self) -> bool:
        """Whether the manifest says that it is a ``.keras`` file rather than a SavedModel."""
        return self.manifest.options.get("format") == "keras"

    def check_files(self) -> None:
        """Compares the sizes and hashes of all files with the manifest, and looks for files that would be opened and are
        not listed. Other files that were added, such as notes, are not looked at.

        ``ArtifactError`` names all missing and changed files, links, and unlisted ones that would be opened.
        """
        listed = self.manifest.files
        faults = [fault for name, facts in listed.items() if (fault := self._fault(name, facts))]
        faults += [f"{name} is not listed in its manifest" for name in sorted(self._readable() - set(listed))]
        if not set(self.target.files) & set(listed):
            faults.append(f"its manifest lists no {' or '.join(self.target.files)}")
        if faults:
            raise ArtifactError(f"{self.path}: {'; '.join(faults)}. Export it again, or copy it again from its source")

    def check_program(self) -> set[str]:
        """Returns the names of its file's operators, before any runtime reads the file; of an engine, none.

        ``ArtifactError``: it holds operators that no export of its target has, or that its manifest does not record.
        """
        if self.target.program is None:  # an engine is machine code
            return set()
        found: set[str] = self.target.program.load()(self)
        recorded = self.manifest.options.get("operators")
        if recorded is not None and (odd := found - set(recorded)):
            raise ArtifactError(
                f"{self.path}: its manifest records no operator {', '.join(sorted(odd))}; export it again"
            )
        return found

    def _refuse_replaced(self, error: Exception | None = None) -> None:
        if self.identity is not None and self.identity != _identity_of(self.path):
            raise ArtifactError(f"{self.path}: was replaced or removed while it was read; open it again") from error

    def _fault(self, name: str, facts: Mapping[str, Any]) -> str | None:
        """What is wrong with a file that the manifest lists."""
        if not stays_inside(name):
            return f"{name[:80]} leads out of the directory"
        file = self.path / name
        if any(
            part.is_symlink() for part in (file, *file.parents) if part.is_relative_to(self.path) and part != self.path
        ):
            return f"{name} is reached by a link"
        if not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) != facts["bytes"]:
            return f"{name} has {size} bytes instead of {facts['bytes']}"
        return None if sha256(file) == facts["sha256"] else f"{name} has changed since it was written (sha256 differs)"

    def _readable(self) -> set[str]:
        """The names of the files here that this tool or a runtime would open. Some runtimes read a whole directory."""
        found = {
            path.relative_to(self.path).as_posix()
            for directory in self.target.directories
            if (self.path / directory).is_dir()
            for path in entries_below(self.path / directory)
            if path.is_symlink() or not path.is_dir()
        }
        known = (*self.target.files, ONNX_DATA_FILE, VISION_FILE, QUESTION_FILE, GOLDEN_FILE, *COMPANION_FILES)
        return found | {name for name in known if (self.path / name).exists() or (self.path / name).is_symlink()}


def is_artifact(path: str | Path) -> bool:
    """Whether a path is an artifact directory: it holds a ``manifest.json``, or another run is replacing it."""
    return (Path(path) / MANIFEST_FILE).is_file() or is_set_aside(Path(path).absolute())


def open_artifact(path: str | Path) -> Artifact:
    """Reads the manifest of an artifact directory, and checks the hash of every file and the operators that it holds.

    While another run replaces it, this is the old artifact or the new one. ``ArtifactError``: not an artifact directory, a
    manifest that cannot be read, files that are missing or changed, or a file that could do more than compute.
    """
    check_spelling(path)
    directory = Path(path)
    for _ in range(ATTEMPTS):
        identity = _identity_of(directory)
        try:
            artifact = _open(directory)
        except (ArtifactError, OSError):
            if is_set_aside(directory.absolute()):
                finish_killed_runs(directory.absolute().parent)
            elif identity == _identity_of(directory):
                raise
        else:
            if identity == _identity_of(directory):
                return replace(artifact, identity=identity)
        time.sleep(PAUSE)
    raise ArtifactError(f"{path}: is being replaced by another run; open it again")


def open_named(name: str | Path) -> Artifact:
    """Opens ``ARTIFACT`` or ``ARTIFACT@RUNTIME``, as commands take it. An existing path that holds an @ is a path.

    ``ArtifactError``: as ``open_artifact`` and ``Artifact.in_runtime``.
    """
    path, runtime = split_runtime(name)
    if runtime is not None and split_runtime(path)[1] is not None and not os.path.lexists(path):
        raise ArtifactError(f"{name}: names two runtimes: give one behind {IN_RUNTIME}")
    return open_artifact(path).in_runtime(runtime)


def split_runtime(name: str | Path) -> tuple[str | Path, str | None]:
    """Splits ``ARTIFACT@RUNTIME``; of an existing path, and of a name without a runtime, the runtime is None."""
    check_spelling(name)
    path, _, runtime = str(name).rpartition(IN_RUNTIME)
    if not path or "/" in runtime or os.sep in runtime or os.path.lexists(name) or is_set_aside(Path(name).absolute()):
        return name, None
    return path, runtime


def _identity_of(directory: Path) -> Identity | None:
    try:
        found = (directory / MANIFEST_FILE).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _open(directory: Path) -> Artifact:
    file = directory / MANIFEST_FILE
    if not file.is_file():
        refuse_converted(directory)
        there = f"no {MANIFEST_FILE}" if directory.exists() else "there is none of that name"
        raise ArtifactError(
            f"{directory}: not an artifact directory ({there}); '{PACKAGE} onnx', 'tensorflow', 'tflite' and "
            "'tensorrt' write such directories"
        )
    artifact = Artifact(directory, read_manifest(file), name=directory.resolve().name)
    artifact.check_files()
    artifact.check_program()
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
