"""The artifact directory: self-describing, self-checking, replayed without PyTorch, and never trusted unread."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lxmert_export as lx
from lxmert_export.api.inspect import inspect_artifact
from lxmert_export.artifact.directory import MANIFEST_FILE, Artifact
from lxmert_export.artifact.golden import read_golden
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.errors import ArtifactError, CheckpointError, InputError
from lxmert_export.files.hashing import sha256
from lxmert_export.judging.pairs import check_comparable
from lxmert_export.parity.report import ParityError
from parity_tests.faults.torch_faults import FAULTS
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest, list_files
from parity_tests.fixtures.missing_modules import without
from parity_tests.fixtures.random_models import SMALL, TINY, lively_inputs, lively_model

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """fp16, from a checkpoint on disk with tokenizer files beside it."""
    place = tmp_path_factory.mktemp("exported")
    lx.save_checkpoint(lively_model("question-answering", TINY), place / "checkpoint")
    (place / "checkpoint" / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (place / "checkpoint" / "labels.json").write_text('["yes", "no"]')
    return lx.export("onnx", place / "checkpoint", place / "artifact", precision="fp16")


@pytest.fixture
def copy(exported: Artifact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.path, tmp_path / "copy"))


def test_manifest_tells_everything(exported: Artifact) -> None:
    values = json.loads((exported.path / MANIFEST_FILE).read_text())
    assert values["format"] == 2
    assert (values["target"], values["precision"], values["task"]) == ("onnx", "fp16", "question-answering")
    assert values["config"]["num_qa_labels"] == 7
    assert values["checkpoint"]["dialect"] == "hf" and len(values["checkpoint"]["sha256"]) == 64
    assert set(values["files"]) == {"model.onnx", "model.onnx.data", "golden.safetensors", "vocab.txt", "labels.json"}
    for name, facts in values["files"].items():
        assert facts == {"sha256": sha256(exported.path / name), "bytes": (exported.path / name).stat().st_size}
    figures = values["parity"]["outputs"]["question_answering_score"]
    assert values["parity"]["passed"] is True and set(figures) == {"emulated", "cpu-fp32-arithmetic"}
    assert 0 < figures["emulated"]["score"] < figures["emulated"]["threshold"]
    assert values["tools"]["torch"] and values["tools"]["onnxruntime"] and values["tools"]["lxmert-export"]


def test_it_can_be_moved_and_verified(copy: Path) -> None:
    assert lx.verify(copy).passed


WITHOUT_FRAMEWORKS = (
    without("torch", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "transformers", "h5py")
    + """
import lxmert_export as lx
report = lx.verify(sys.argv[1])
print(report.passed, sorted({cell.arithmetic for cell in report.cells}))
"""
)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_verify_needs_numpy_and_onnxruntime_alone(precision: lx.Precision, exports: Exports) -> None:
    path = exports.lively("onnx", "question-answering", TINY, precision=precision).path
    done = subprocess.run([sys.executable, "-c", WITHOUT_FRAMEWORKS, str(path)], capture_output=True, text=True, cwd=ROOT,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = "True ['native']" if precision == "fp32" else "True ['cpu-fp32-arithmetic']"
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "golden.safetensors", "labels.json"])
@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "link"])
def test_damage_is_named_before_any_runtime_sees_a_byte(name: str, damage: str, copy: Path, tmp_path: Path) -> None:
    file = copy / name
    content = file.read_bytes()
    if damage == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "shorter":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
        if damage == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            file.symlink_to(tmp_path / "elsewhere")
    told = {"changed": "has changed", "shorter": "bytes instead of", "missing": "missing", "link": "reached by a link"}
    for use in (lx.load_artifact, lx.verify):
        with pytest.raises(ArtifactError, match=f"{name} .*{told[damage]}"):
            use(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", "a/../../b", "C:/x/y"])
def test_a_manifest_cannot_name_files_outside(name: str, copy: Path) -> None:
    edit_manifest(copy, files={name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(ArtifactError, match="leads out of the directory"):
        lx.load_artifact(copy)


def test_external_data_cannot_lie_outside(copy: Path) -> None:
    """Even where every hash fits: the file itself points elsewhere."""
    model = onnx.load(copy / "model.onnx", load_external_data=False)
    (copy.parent / "outside.data").write_bytes((copy / "model.onnx.data").read_bytes())
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../outside.data"
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    list_files(copy, "model.onnx")
    with pytest.raises(ArtifactError, match=r"weights in files that its manifest does not list: \.\./outside\.data"):
        lx.load_artifact(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, r"was written by a later version of lxmert-export \(manifest format 3\): upgrade it"),
        ({"format": 0}, "format is 0, not one of 1, 2"),
        ({"signature": {}}, r"signature\.task is missing"),
        ({"config": {"hidden_size": "wide"}}, r"config\.attention_probs_dropout_prob is missing"),
        ({"files": []}, "cannot be read as a manifest"),
        ({"precision": "int4"}, "this version does not know the precision 'int4'"),
        ({"precision": ["fp16"]}, "precision is .* not of type string"),
        ({"target": "coreml"}, "does not know its target 'coreml'"),
    ],
)
def test_odd_manifests(changes: dict[str, Any], message: str, copy: Path) -> None:
    edit_manifest(copy, **changes)
    with pytest.raises(ArtifactError, match=message):
        lx.load_artifact(copy)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"target": "tflite"}, "model.tflite"),
        ({"target": "tensorflow"}, "saved_model"),
        ({"target": "tensorflow", "options": {"format": "keras"}}, "model.keras"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_target_that_was_edited(changes: dict[str, Any], file: str, there: bool, copy: Path) -> None:
    edit_manifest(copy, **changes)
    if there:  # a file of the name, that is none: as good as a manifest that names it with its hash
        place = copy / file / "saved_model.pb" if file == "saved_model" else copy / file
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(copy / "model.onnx", place)
        list_files(copy, place.relative_to(copy).as_posix())
    said = (
        f"{file}.*: its manifest says {changes['target']}, but it cannot be read as such"
        if there
        else "lists no .*" + file
    )
    for use in (inspect_artifact, lx.verify):
        with pytest.raises(ArtifactError, match=said):
            use(copy)


@pytest.mark.parametrize("content", [b"", b"no protocol buffer", "model.onnx.data"])
def test_an_onnx_file_that_is_none(content: bytes | str, copy: Path) -> None:
    (copy / "model.onnx").write_bytes((copy / content).read_bytes() if isinstance(content, str) else content)
    list_files(copy, "model.onnx")
    with pytest.raises(ArtifactError, match=r"model\.onnx: its manifest says onnx, but it cannot be read as such"):
        inspect_artifact(copy)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_precision_that_was_edited(precision: str, copy: Path) -> None:
    edit_manifest(copy, precision=precision)
    with pytest.raises(
        ArtifactError, match=f"says {precision} weights .* matmuls compute in {{'fp16'.*; export it again"
    ):
        lx.verify(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_manifest_that_is_no_manifest(text: str, copy: Path) -> None:
    (copy / MANIFEST_FILE).write_text(text)
    with pytest.raises(ArtifactError, match="cannot be read as a manifest"):
        lx.load_artifact(copy)


def test_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact directory") as caught:
        lx.load_artifact(tmp_path)
    assert all(f"{target}'" in str(caught.value) for target in TARGETS), "every target's command writes one"


def test_runner_fills_casts_and_refuses(exported: Artifact) -> None:
    inputs = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    few = {name: inputs[name] for name in ("input_ids", "visual_feats", "visual_pos")}
    spelled = {**few, "attention_mask": np.ones((3, 7)).astype(bool), "token_type_ids": np.zeros((3, 7), np.int32),
               "visual_attention_mask": np.ones((3, 5), np.int64)}  # fmt: skip
    wrong = {
        "input_ids holds 150; it must be at least 0 and below vocab_size 150": {
            **few,
            "input_ids": few["input_ids"] * 0 + 150,
        },
        "input_ids holds -1": {**few, "input_ids": few["input_ids"] * 0 - 1},
        "token_type_ids holds 2": {**spelled, "token_type_ids": np.full((3, 7), 2)},
        "input_ids has 33 words; the position table ends at 32": {**few, "input_ids": np.ones((3, 33), np.int64)},
        "missing input visual_pos": {name: few[name] for name in ("input_ids", "visual_feats")},
        "unknown input pixels": {**few, "pixels": np.zeros(3)},
        r"visual_feats has shape \[3, 5, 17\]; expected \[3, objects, 16\]": {
            **few,
            "visual_feats": np.zeros((3, 5, 17)),
        },
        r"visual_pos has shape \[2, 5, 4\]": {**few, "visual_pos": np.zeros((2, 5, 4))},
        r"input_ids has shape \[3, 0\]": {**few, "input_ids": np.zeros((3, 0), np.int64)},
        "input_ids must hold integers": {**few, "input_ids": few["input_ids"] * 1.0},
        "visual_feats must hold numbers": {**few, "visual_feats": np.full((3, 5, 16), "x")},
    }
    with lx.load_artifact(exported.path) as runner:
        assert np.array_equal(*(runner.run(i)["question_answering_score"] for i in (few, spelled)))
        for message, arrays in wrong.items():
            with pytest.raises(InputError, match=message):
                runner.run(arrays)


def test_golden_file_replays_inputs_references_and_floors(exported: Artifact) -> None:
    golden = read_golden(exported.path / "golden.safetensors", exported.manifest.signature)
    judged = [cell for cell in exported.report.cells if cell.kind == "reference"]
    assert {family.name for family in golden.samples.families} == {cell.family for cell in judged}
    for (family, output), floor in golden.floors.items():
        cell = next(c for c in judged if (c.family, c.output) == (family, output))
        assert floor.rms == cell.floor and floor.samples >= 16 and floor.values >= 256
        assert golden.reference[family, output][0].dtype == np.float64


def test_a_damaged_golden_file_with_a_fitting_hash(copy: Path) -> None:
    (copy / "golden.safetensors").write_bytes(b"\0" * 64)
    list_files(copy, "golden.safetensors")
    with pytest.raises(ArtifactError, match="damaged golden file"):
        lx.verify(copy)


def test_verify_catches_a_fault_whose_hashes_fit(copy: Path) -> None:
    model = onnx.load(copy / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "lxmert.embeddings.position.weight":
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.roll(onnx.numpy_helper.to_array(tensor), 1, 0), tensor.name)
            )
    (copy / "model.onnx.data").unlink()
    onnx.save(model, copy / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    list_files(copy, "model.onnx", "model.onnx.data")
    assert not lx.verify(copy).passed


def test_an_overflowing_checkpoint_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    FAULTS["fp16_overflow"](model)
    with pytest.raises(ParityError, match="parity FAILED") as caught:
        lx.export("onnx", model, tmp_path / "out", precision="fp16")
    assert any(cell.reason == "NaN or infinity" for cell in caught.value.report.failures)
    assert list(tmp_path.iterdir()) == []
    assert lx.export("onnx", model, tmp_path / "fp32").report.passed


def test_without_the_gate_the_manifest_says_so(tmp_path: Path) -> None:
    artifact = lx.export("onnx", lively_model("model", TINY), tmp_path / "out", parity=False)
    assert json.loads((artifact.path / MANIFEST_FILE).read_text())["parity"] is None
    advice = f"written with --no-parity.*: lxmert-export parity {artifact.path} --checkpoint CHECKPOINT"
    with pytest.raises(ArtifactError, match=advice):
        lx.verify(artifact.path)
    assert check_here([artifact.path], checkpoint=lively_model("model", TINY)).passed
    assert not check_here([artifact.path], checkpoint=lively_model("model", TINY, seed=5)).passed


def test_several_artifacts_against_one_another(exported: Artifact, exports: Exports, tmp_path: Path) -> None:
    checkpoint = exported.path.parent / "checkpoint"
    full = exports.lively("onnx", "question-answering", TINY)
    for report in (check_here([exported.path, full.path]),
                   check_here([exported.path, full.path], checkpoint=checkpoint)):  # fmt: skip
        assert report.passed
        assert {cell.against for cell in report.cells if cell.kind != "law"} == {"float64", full.name}
    other = lx.export("onnx", lively_model("question-answering", TINY, seed=9), tmp_path / "other")
    assert not check_here([full.path, other.path]).passed


def test_what_cannot_be_compared(exported: Artifact, tmp_path: Path) -> None:
    backbone = lx.export("onnx", lively_model("model", TINY), tmp_path / "model", parity=False)
    fixed = lx.export("onnx", exported.path.parent / "checkpoint", tmp_path / "fixed", fixed={"text": 9}, parity=False)
    with pytest.raises(ArtifactError, match="differ in task"):
        check_here([exported.path, backbone.path])
    with pytest.raises(ArtifactError, match="differ in fixed axes"):
        check_here([exported.path, fixed.path])
    for change, named in (
        (
            {"num_attention_heads": 2, "hidden_dropout_prob": 0.5},
            f"num_attention_heads {TINY.num_attention_heads} and 2",
        ),
        ({"hidden_size": 40}, f"hidden_size {TINY.hidden_size} and 40"),
    ):
        config = exported.manifest.config.replace(**change)
        other = replace(exported, manifest=replace(exported.manifest, config=config))
        with pytest.raises(
            ArtifactError, match=rf"differ in config \({named}\)$"
        ):  # and in nothing that changes no output
            check_comparable([exported, other])
    with pytest.raises(ArtifactError, match="no artifact"):
        check_here([])
    with pytest.raises((ArtifactError, CheckpointError), match="config differs from that of"):
        check_here([exported.path], checkpoint=lively_model("question-answering", SMALL))


def test_an_earlier_artifact_stays_untouched(exported: Artifact, copy: Path) -> None:
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    model = lively_model("question-answering", TINY)
    with pytest.raises(ArtifactError, match="exists already"):
        lx.export("onnx", model, copy)
    FAULTS["fp16_overflow"](model)
    with pytest.raises(ParityError):
        lx.export("onnx", model, copy, precision="fp16", overwrite=True)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
