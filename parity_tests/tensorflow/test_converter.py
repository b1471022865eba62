"""From a checkpoint to a SavedModel or a .keras file: every task through the gate, served without us, bad input refused."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

import converters.to_tensorflow
import lxmert_export as lx
from converters.to_tensorflow import SIGNATURES
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.precision import check_precision
from lxmert_export.errors import ArtifactError, ConversionError, InputError
from lxmert_export.parity.report import ParityError
from lxmert_export.spec.signature import TASKS, Precision, Task
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, inputs_for, lively_model

# Sound exports of lively models score 1.1 at most (fp32) and 0.6 (fp16, whose floor is the least one); faults score 8.
HIGHEST = 3.0


def written(task: Task, directory: Path, **options: Any) -> Artifact:
    return export("tensorflow", lively_model(task, TINY), directory, **options)


# Every task in both precisions and in both formats. Each further combination is one Keras model in a format that is seen to
# hold it: what a SavedModel holds of a task does not depend on the precision, nor does what a .keras file holds.
COMBINATIONS: list[tuple[Task, Precision, str]] = [
    *((task, "fp32", "saved-model") for task in TASKS),
    *((task, "fp16", "keras") for task in TASKS),
    ("question-answering", "fp16", "saved-model"),
    ("pretraining", "fp32", "keras"),
]


@pytest.mark.parametrize(("task", "precision", "file_format"), COMBINATIONS)
def test_every_task_passes_its_gate(task: Task, precision: Precision, file_format: str, exports: Exports) -> None:
    artifact = exports.lively("tensorflow", task, TINY, precision=precision, file_format=file_format)
    assert artifact.report is not None and artifact.report.passed
    assert max(np.inf if cell.score is None else cell.score for cell in artifact.report.cells) < HIGHEST
    assert {cell.arithmetic for cell in artifact.report.cells} == {"native"}
    assert lx.verify(artifact.path).passed


def test_the_manifest_has_the_figures_of_the_signature_that_is_judged_against_float64(exports: Exports) -> None:
    """Those of the further signatures, which are compared with it and nearly the same to the bit, are no measure of it."""
    artifact = exports.lively("tensorflow", "question-answering", TINY, precision="fp16", file_format="saved-model")
    assert artifact.report is not None and artifact.manifest.parity is not None
    own = [cell for cell in artifact.report.cells if cell.runner == "out" and cell.kind == "reference"]
    others = [cell for cell in artifact.report.cells if cell.runner != "out"]
    assert {cell.against for cell in own} == {"float64"} and {cell.against for cell in others} == {"out"}
    recorded = artifact.manifest.parity["outputs"]["question_answering_score"]["native"]
    assert recorded["score"] == max(cell.score or 0 for cell in own) > 0.01


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_ids", np.full((3, 7), 2**32 + 5), "input_ids holds .* to .*, which int32 cannot hold"),
        ("attention_mask", np.full((3, 7), 2**32), "attention_mask holds .* to .*, which int32 cannot hold"),
        ("visual_pos", np.full((3, 5, 4), 1e39), "visual_pos reaches 1e.39, which float32 cannot hold"),
    ],
)
def test_what_a_narrower_type_cannot_hold_is_refused(name: str, value: Any, message: str, saved: Artifact) -> None:
    given = {n: tensor.numpy() for n, tensor in inputs_for("pretraining").items()}
    given["visual_feats"], given["visual_pos"] = given["visual_feats"][:, :5], given["visual_pos"][:, :5]
    given["visual_attention_mask"] = given["visual_attention_mask"][:, :5]
    with lx.load_artifact(saved.path) as runner, pytest.raises(InputError, match=message):
        runner.run({**given, name: value})


def test_a_provider_is_not_believed_of_what_takes_none(saved: Artifact) -> None:
    for call in (lx.verify, lx.load_artifact, lambda path, **options: check_here([path], **options)):
        with pytest.raises(InputError, match="is for ONNX artifacts in onnxruntime, and this one runs in tensorflow"):
            call(saved.path, providers=["CUDAExecutionProvider"])


@pytest.fixture(scope="module")
def saved(exports: Exports) -> Artifact:
    return exports.lively("tensorflow", "pretraining", TINY)


def test_every_output_on_request(exports: Exports) -> None:
    options = {"hidden_states": True, "attentions": True, "object_heads": True}
    artifact = exports.lively("tensorflow", "pretraining", TINY, **options)
    names = [spec.name for spec in artifact.manifest.signature.outputs]
    assert {"object_logits", "language_hidden_states.1", "cross_encoder_attentions.0"} <= set(names)
    assert artifact.report is not None and {cell.output for cell in artifact.report.cells} == set(names)


SERVED_ALONE = """
import json, sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
inputs = dict(np.load(sys.argv[2]))
found = {}
for name in model.signatures:
    serve = model.signatures[name]
    given = {key: tf.constant(inputs[key], spec.dtype) for key, spec in serve.structured_input_signature[1].items()}
    found |= {f"{name}/{output}": value.numpy() for output, value in serve(**given).items()}
np.savez(sys.argv[3], **found)
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ("lxmert_export", "converters", "torch")]))
"""


def test_three_signatures_are_served_without_us(saved: Artifact, tmp_path: Path) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for("pretraining").items()}
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]  # numpy's own stub
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVED_ALONE, saved.path / "saved_model", "inputs.npz", "outputs.npz"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == []
    found = dict(np.load(tmp_path / "outputs.npz"))
    with lx.load_artifact(saved.path) as runner:
        wanted = runner.run(inputs)
        bare = runner.run({name: inputs[name] for name in ("input_ids", "visual_feats", "visual_pos")})
    assert {name.partition("/")[0] for name in found} == set(SIGNATURES)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[f"serving_default/{name}"], array)
        np.testing.assert_array_equal(found[f"serving_int64/{name}"], array)
        # The same numbers in another batch of operators: the masks are filled in inside the graph.
        np.testing.assert_allclose(found[f"serving_minimal/{name}"], bare[name], rtol=1e-5, atol=1e-5)
        assert not np.allclose(array, bare[name], atol=1e-3), "the masks of these inputs make a difference"


def test_it_is_compared_with_onnx_of_the_same_checkpoint(saved: Artifact, exports: Exports, tmp_path: Path) -> None:
    others = {
        "onnx": exports.lively("onnx", "pretraining", TINY),
        "keras": exports.lively("tensorflow", "pretraining", TINY, file_format="keras"),
        "tflite": exports.lively("tflite", "pretraining", TINY),
    }
    paths = [Path(shutil.copytree(artifact.path, tmp_path / name)) for name, artifact in others.items()]
    report = check_here([saved.path, *paths], checkpoint=lively_model("pretraining", TINY))
    assert report.passed
    names = {"out", "keras", "onnx", "tflite"}  # and not a SavedModel beside its own further signatures
    pairs = {(cell.runner, cell.against) for cell in report.cells if {cell.runner, cell.against} <= names}
    assert len(pairs) == 6
    assert check_here([saved.path, paths[0]]).passed  # golden files, no checkpoint at hand


def test_fixed_axes_are_in_the_served_signature(tmp_path: Path) -> None:
    artifact = written("model", tmp_path / "out", fixed={"batch": 2, "text": 6, "objects": 5})
    with lx.load_artifact(artifact.path) as runner:
        inputs = {name: tensor.numpy() for name, tensor in inputs_for("model").items()}
        with pytest.raises(InputError, match=r"input_ids has shape \[3, 7\]; expected \[2, 6\]"):
            runner.run(inputs)


def test_ids_outside_the_vocabulary_and_long_texts_are_refused(saved: Artifact) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for("pretraining").items()}
    with lx.load_artifact(saved.path) as runner:
        with pytest.raises(InputError, match=f"input_ids holds {SMALL.vocab_size}"):
            runner.run({**inputs, "input_ids": np.full_like(inputs["input_ids"], SMALL.vocab_size)})
        longest = np.ones((3, SMALL.max_position_embeddings + 1), np.int64)
        visual = {name: array for name, array in inputs.items() if name.startswith("visual")}
        with pytest.raises(InputError, match=f"the position table ends at {SMALL.max_position_embeddings}"):
            runner.run({**visual, "input_ids": longest})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "target tensorflow has no precision 'bf16'; choose from fp32, fp16"),
        ({"precision": "int8"}, "target tensorflow has no precision 'int8'"),
        ({"opset": 18}, "opset: not an option of fp32 tensorflow"),
        ({"io_dtype": "float16"}, "io_dtype: not an option"),
        ({"file_format": "onnx"}, "unknown file_format 'onnx'; choose from saved-model, keras"),
        ({"full_integer": True}, "full_integer: not an option of fp32 tensorflow"),
        ({"calibration": "x.npz"}, "calibration: not an option"),
    ],
)
def test_what_it_does_not_do_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=message):
        written("model", tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_a_module_of_the_users_own_is_refused(tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = lively_model("model")

    with pytest.raises(ConversionError, match="Own is a module of your own"):
        export("tensorflow", Own(), tmp_path / "out", signature=lx.task_signature(SMALL, "model"))
    assert not any(tmp_path.iterdir())


def test_a_weight_beyond_fp16_is_named(tmp_path: Path) -> None:
    model = lively_model("model")
    model.pooler.weight.data[0, 0] = 1e5
    with pytest.raises(ConversionError, match="lxmert.pooler.weight does not fit float16: its largest magnitude is 1e"):
        export("tensorflow", model, tmp_path / "out", precision="fp16")
    assert not any(tmp_path.iterdir())


def test_a_failed_gate_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.tensorflow_model.layers.MASK_BIAS", 0.0)
    monkeypatch.setattr("converters.tensorflow_model.model.MASK_BIAS", 0.0)
    with pytest.raises(ParityError, match="ragged inputs|masked-row inputs|zero-padded inputs|laws together"):
        written("model", tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["_narrowed", "_filled"])
def test_a_fault_in_a_further_signature_fails(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = getattr(converters.to_tensorflow, fault)

    def faulty(inputs: Any, *rest: Any) -> Any:
        given = sound(inputs, *rest)
        name = "input_ids" if fault == "_narrowed" else "attention_mask"
        return {**given, name: given[name] * 0}

    monkeypatch.setattr(converters.to_tensorflow, fault, faulty)
    with pytest.raises(ParityError) as failed:
        written("question-answering", tmp_path / "out")
    names = {cell.runner for cell in failed.value.report.failures}
    assert names == {f"out {'serving_int64' if fault == '_narrowed' else 'serving_minimal'}"}


def test_a_file_that_did_not_come_with_it_is_not_opened(saved: Artifact, exports: Exports, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved.path, copy)
    other = exports.lively("tensorflow", "pretraining", TINY, file_format="keras")
    shutil.copyfile(other.path / "model.keras", copy / "model.keras")
    with pytest.raises(ArtifactError, match=r"model\.keras is not listed in its manifest"):
        lx.load_artifact(copy)
    (copy / "model.keras").unlink()
    (copy / "saved_model" / "saved_model.pbtxt").write_text("")
    with pytest.raises(ArtifactError, match="saved_model.pbtxt is not listed in its manifest"):
        lx.load_artifact(copy)


@contextmanager
def full_disk() -> Iterator[None]:
    """A limit of the size of files stands in for the disk: the kernel answers the same way, with an error on write."""
    _, most = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("checkpoint") / "lively"
    lx.save_checkpoint(lively_model("question-answering", TINY), place)
    return str(place)


@pytest.mark.parametrize("command", [["tensorflow"], ["tensorflow", "--format", "keras"], ["tflite"]], ids=" ".join)
def test_a_full_disk_is_one_line(
    command: list[str], checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with full_disk():
        done = run(*command, checkpoint, "--no-parity", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path / 'out'}: cannot be written: File too large; nothing was changed\n"
    assert capfd.readouterr() == ("", ""), "nor do the libraries say anything"
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "a tensor's name; No space left on device"), "No space left"),
        (tf.errors.DataLossError(None, None, "{{node Save}} checksum\nof block"), r"{{node Save}} checksum; nothing"),
        (tf.errors.UnknownError(None, None, ""), "UnknownError"),
    ],
)
def test_whatever_tensorflow_calls_a_write_that_failed(
    error: tf.errors.OpError, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(ArtifactError, match=f"out: cannot be written: {message}"):
        written("model", tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["saved_model/saved_model.pb", "saved_model/variables/variables.data-00000-of-00001"])
def test_a_damaged_file_is_named_before_tensorflow_sees_it(saved: Artifact, file: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved.path, copy)
    damaged = bytearray((copy / file).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / file).write_bytes(damaged)
    with pytest.raises(ArtifactError, match=f"{file} has changed"):
        lx.load_artifact(copy)


def test_a_saved_model_that_is_not_ours_is_one_line(saved: Artifact) -> None:
    with pytest.raises(ArtifactError, match="not an artifact directory"):
        lx.load_artifact(saved.path / "saved_model")


def test_a_wrong_precision_in_the_manifest_is_seen(saved: Artifact) -> None:
    lying = replace(saved, manifest=replace(saved.manifest, precision="fp16"))
    with pytest.raises(ConversionError, match="fp16 weights and fp16 arithmetic, but its matmuls compute in {'fp32'"):
        check_precision(lying)


@pytest.mark.parametrize("target", ["tensorflow", "tflite"])
def test_other_sizes_than_the_published(target: str, tmp_path: Path) -> None:
    config = TINY.replace(visual_pos_dim=6, tie_word_embeddings=False, layer_norm_eps=1e-3, r_layers=0, task_qa=False)
    artifact = export(target, lively_model("pretraining", config), tmp_path / "out", object_heads=True)
    assert artifact.report is not None and artifact.report.passed
