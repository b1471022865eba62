"""What every runner has in common: closed it says so, and a runtime that fails is one line."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import lxmert_export as lx
from lxmert_export.api.artifact import load_artifact
from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.runners.onnx import emulator, session
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import open_emulator
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, inputs_for, lively_inputs, lively_model

WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("onnx", {}),
    "openvino": ("onnx", {}),
    "emulated": ("onnx", {"precision": "bf16"}),
    "saved-model": ("tensorflow", {}),
    "keras": ("tensorflow", {"file_format": "keras"}),
    "tflite": ("tflite", {}),
}


def written(kind: str, exports: Exports) -> Artifact:
    target, options = WRITERS[kind]
    return exports.lively(target, "question-answering", TINY, **options)


def opened(kind: str, artifact: Artifact) -> Runner:
    if kind == "emulated":
        return open_emulator(artifact)
    return load_artifact(artifact.path, runtime="openvino" if kind == "openvino" else None)


@pytest.fixture(scope="module")
def openers(exports: Exports) -> dict[str, Callable[[], Runner]]:
    def opener(kind: str) -> Callable[[], Runner]:
        artifact = written(kind, exports)
        return lambda: opened(kind, artifact)

    signature = task_signature(TINY, "question-answering")
    module = lively_model("question-answering", TINY)
    return {kind: opener(kind) for kind in WRITERS} | {
        "torch": lambda: TorchRunner(module, signature, InputLimits.of(TINY), "fp32")
    }


@pytest.mark.parametrize("kind", [*WRITERS, "torch"])
def test_a_closed_runner_says_that_it_is(kind: str, openers: dict[str, Callable[[], Runner]]) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for("question-answering").items()}
    with openers[kind]() as runner:
        runner.run(inputs)
    with pytest.raises(ArtifactError, match=f"^{runner.name}: this runner is closed: run it inside its 'with' block"):
        runner.run(inputs)
    runner.close()
    with pytest.raises(ArtifactError, match="this runner is closed"):
        runner.run({})


@pytest.mark.parametrize("kind", WRITERS)
def test_a_runtime_that_fails_is_one_line(kind: str, openers: dict[str, Callable[[], Runner]]) -> None:
    """A signature that promises more than the file takes stands in for a damaged file."""
    inputs = {name: tensor.numpy() for name, tensor in inputs_for("question-answering").items()}
    with openers[kind]() as runner:
        wide = np.repeat(inputs["visual_feats"], 2, axis=-1)
        for name, lengthened in {"visual_feats": wide, "visual_pos": inputs["visual_pos"][..., :3]}.items():
            given = {**inputs, name: lengthened}
            runner.signature = _taking(runner, given)
            with pytest.raises((ArtifactError, InputError)) as caught:
                runner.run(given)
            assert "\n" not in str(caught.value)


def _taking(runner: Runner, inputs: Arrays) -> Any:
    specs = [replace(s, axes=(*s.axes[:2], *inputs[s.name].shape[2:])) for s in runner.signature.inputs]
    return replace(runner.signature, inputs=tuple(specs))


class Failing(Runner):
    """A runtime whose error is given to it."""

    failures = (RuntimeError,)
    error: Exception = RuntimeError("first line\nsecond line")

    def compute(self, inputs: Arrays) -> Arrays:
        raise self.error


@pytest.fixture
def failing() -> Iterator[Failing]:
    with Failing("it", task_signature(SMALL, "model"), InputLimits.of(SMALL)) as runner:
        yield runner


def test_what_a_runtime_said_is_told_in_one_line(failing: Failing) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for("model").items()}
    for error, told in ((Failing.error, "first line"), (RuntimeError(), "RuntimeError")):
        failing.error = error
        with pytest.raises(ArtifactError, match=f"^it: failed while it ran: {told}$") as caught:
            failing.run(inputs)
        assert caught.value.__cause__ is error
    failing.error = ZeroDivisionError("a fault of the program's own is not hidden")
    with pytest.raises(ZeroDivisionError):
        failing.run(inputs)


DAMAGES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "no opset": lambda model: model.opset_import.pop(),
    "another domain": lambda model: setattr(model.graph.node[3], "domain", "strange"),
    "no such operator": lambda model: setattr(model.graph.node[3], "op_type", "Strange"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_graph_that_cannot_be_emulated_is_one_line_and_leaves_nothing(
    damage: Callable[[onnx.ModelProto], object], exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX's own inference fails on it, or onnxruntime does."""
    artifact = replace(written("emulated", exports), path=tmp_path / "damaged", identity=None)
    shutil.copytree(written("emulated", exports).path, artifact.path)
    file = artifact.file("model.onnx")
    model = onnx.load(file, load_external_data=False)
    damage(model)
    onnx.save(model, file)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(ArtifactError, match=r"model\.onnx: cannot be emulated: ") as told:
        open_emulator(artifact)
    assert "\n" not in str(told.value) and str(temporary) not in str(told.value)
    assert not any(temporary.iterdir())


@pytest.mark.parametrize("error", [KeyError("a name"), AttributeError("a node"), ValueError("a shape")], ids=repr)
def test_a_fault_of_ours_is_not_taken_for_a_damaged_file(
    error: Exception, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the graph surgery comes through as it is: ``ArtifactError`` would tell the user to export again."""

    def broken(*arguments: object) -> None:
        raise error

    artifact = written("emulated", exports)
    monkeypatch.setattr(emulator, "widen", broken)
    with pytest.raises(type(error)) as raised:
        open_emulator(artifact)
    assert raised.value is error


def test_a_full_disk_under_the_emulator_is_told_as_it_is(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    artifact = written("emulated", exports)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(ArtifactError, match=f"its float32 copy does not fit in {tmp_path}: set TMPDIR"):
        open_emulator(artifact)


def test_a_provider_that_does_not_start_is_not_believed(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime itself goes on with the CPU, whose float32 arithmetic would count as fp16's."""
    artifact = written("onnx", exports)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FellBack)
    with pytest.raises(
        ArtifactError, match="could not start CUDAExecutionProvider and fell back to CPUExecutionProvider"
    ):
        load_artifact(artifact.path, providers=["CUDAExecutionProvider"])


def test_cuda_is_told_not_to_compute_float32_in_tf32(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, asked = written("onnx", exports), []

    class Noting(FellBack):
        def __init__(self, *arguments: object, providers: object) -> None:
            asked.append(providers)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Noting)
    with pytest.raises(ArtifactError, match="could not start"):
        load_artifact(artifact.path, providers=["CUDAExecutionProvider", CPU])
    assert asked == [[("CUDAExecutionProvider", {"use_tf32": "0"}), (CPU, {})]]


def test_reports_say_that_tf32_is_off(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = written("onnx", exports)
    monkeypatch.setattr(session, "check_providers", lambda providers: None)
    opened = session.open_session

    def on_the_cpu(path: Path, providers: Sequence[str], *others: Any, **settings: Any) -> onnxruntime.InferenceSession:
        return opened(path, (CPU,), *others, **settings)

    monkeypatch.setattr(session, "open_session", on_the_cpu)
    report = lx.verify(artifact.path, providers=["CUDAExecutionProvider", CPU])
    assert report.runners[0].settings == ("TF32 off (CUDAExecutionProvider)",)
    assert report.notes == ("out: TF32 off (CUDAExecutionProvider)",)
    assert lx.verify(artifact.path).notes == ()


class FellBack:
    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return [CPU]


@pytest.mark.tensorflow
def test_a_runner_under_another_signature_closes_with_the_first(exports: Exports) -> None:
    artifact = exports.lively("tensorflow", "question-answering", TINY)
    with load_artifact(artifact.path) as runner:
        other = runner.under("serving_int64")
    inputs = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    with pytest.raises(ArtifactError, match="this runner is closed"):
        other.run(inputs)
