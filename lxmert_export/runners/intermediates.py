"""Opens an artifact so that its intermediates show; each runtime is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Protocol, cast

from lxmert_export.artifact.directory import ONNX_FILE, SAVED_MODEL, TFLITE_FILE, Artifact
from lxmert_export.errors import ArtifactError, MissingExtra
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.points import Point
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import InputLimits

EXTRAS = {
    "onnx": ("onnxruntime", "onnx"),
    "tensorflow": ("tensorflow", "tensorflow"),
    "tflite": ("ai_edge_litert", "tflite"),
}
MOST_UNKNOWN = 0.5  # of a network's points: with fewer of them known, a file tells nothing of where it goes wrong


class Located(Protocol):
    """A runner whose outputs are points: which tensor of the file each of them is."""

    tensors: Mapping[Point, str]


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> tuple[Runner, Mapping[Point, str]]:
    """A runner that gives what flows at the points, by their names, and the tensor of the file that each is.

    ``ArtifactError``: as ``check_visible``, or a file whose operators have lost their names. ``MissingExtra``: the runtime is
    not installed.
    """
    check_visible(artifact)
    module, extra = EXTRAS[artifact.manifest.target]
    if find_spec(module) is None:
        raise MissingExtra(f"looking into a {artifact.manifest.target} artifact", extra)
    with quiet_native_logs():
        runner = _open(artifact, points)
    tensors = cast(Located, runner).tensors
    if len(tensors) < MOST_UNKNOWN * len(points):
        runner.close()
        raise ArtifactError(
            f"{artifact.path}: its operators do not have the names that this tool gives them "
            f"({len(tensors)} of {len(points)} points found), so that none can be told from another: export it again"
        )
    return runner, tensors


def check_visible(artifact: Artifact) -> None:
    """``ArtifactError``: an artifact whose insides do not show."""
    if artifact.is_engine:
        raise ArtifactError(
            f"{artifact.path}: an engine does not show what flows inside it: locate the fault in the ONNX artifact it came from"
        )
    if artifact.is_keras:
        raise ArtifactError(
            f"{artifact.path}: a .keras file has no graph to look into: export it with --format saved-model, and locate there"
        )


def _open(artifact: Artifact, points: Sequence[Point]) -> Runner:
    manifest, name = artifact.manifest, artifact.name
    signature, config, limits = manifest.signature, manifest.config, InputLimits.of(manifest.config)
    if manifest.target == "onnx":
        from lxmert_export.runners.onnx.intermediates import OnnxIntermediates

        file = artifact.file(ONNX_FILE)
        return OnnxIntermediates(file, signature, limits, points, precision=manifest.precision, name=name)
    if manifest.target == "tflite":
        from lxmert_export.runners.tflite.intermediates import LiteRtIntermediates

        return LiteRtIntermediates(artifact.file(TFLITE_FILE), signature, limits, points, config, name=name)
    from lxmert_export.runners.tensorflow.intermediates import SavedModelIntermediates

    return SavedModelIntermediates(artifact.file(SAVED_MODEL), signature, limits, points, config, name=name)
