"""The same contents are the same bytes."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors import safe_open

import lxmert_export as lx
from lxmert_export.files.safetensors_files import write_safetensors
from lxmert_export.reference import torch_runner
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, lively_inputs, lively_model

pytestmark = pytest.mark.quick


def test_metadata_is_written_in_one_order(tmp_path: Path) -> None:
    """safetensors itself takes any of 24 orders here."""
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4, dtype=np.int32)}
    metadata = {"format": "it", "not_run": '["a \\"b\\"", "é"]', "first": "1", "second": "2"}
    for number in range(12):
        write_safetensors(tmp_path / f"{number}", tensors, metadata)
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(12)}) == 1
    with safe_open(tmp_path / "0", framework="numpy") as file:
        assert file.metadata() == metadata
        assert all(np.array_equal(file.get_tensor(name), tensors[name]) for name in tensors)


# Judged and not. An export, and how its manifest names those options that are not in the signature.
REMADE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "onnx": (
        {"precision": "fp16", "hidden_states": True, "fixed": {"text": 7}, "opset": 20},
        {"opset": "opset", "attention": "attention"},
    ),
    "tensorflow": ({"file_format": "keras", "parity": False}, {"file_format": "format"}),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("target", REMADE)
def test_an_artifact_is_remade_from_its_manifest(target: str, tmp_path: Path) -> None:
    options, recorded = REMADE[target]
    checkpoint = tmp_path / "checkpoint"
    lx.save_checkpoint(lively_model("question-answering", TINY), checkpoint)
    made = lx.export(target, checkpoint, tmp_path / "made", **options)
    manifest = lx.open_artifact(made.path).manifest
    versions = {name: version(name) for name in manifest.tools if name != "torch"}
    assert {name: manifest.tools[name] for name in versions} == versions
    again = lx.export(
        manifest.target, manifest.checkpoint["name"], tmp_path / "again", precision=manifest.precision,
        parity=manifest.parity is not None, signature=manifest.signature,
        **{option: manifest.options[name] for option, name in recorded.items()},
    )  # fmt: skip
    files, remade = (
        {str(path.relative_to(one.path)): path.read_bytes() for path in one.path.rglob("*") if path.is_file()}
        for one in (made, again)
    )
    assert len(files) >= (3 if manifest.parity else 2)
    assert files == remade


@pytest.mark.parametrize("small", [0, torch_runner.SMALL])
def test_the_reference_is_the_same_with_any_number_of_threads(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that counts as small, and of one that does not."""
    monkeypatch.setattr(torch_runner, "SMALL", small)
    model, inputs = lively_model("question-answering", SMALL), {k: v.numpy() for k, v in lively_inputs(SMALL).items()}
    signature, before, found = task_signature(SMALL, "question-answering"), torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with TorchRunner(model, signature, InputLimits.of(SMALL), "fp32") as runner:
                found.add(runner.run(inputs)["question_answering_score"].tobytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.tensorflow
def test_a_keras_file_has_no_dates(exports: Exports) -> None:
    file = exports.lively("tensorflow", "question-answering", TINY, file_format="keras").path / "model.keras"
    with ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json"))["date_saved"] == "1980-01-01@00:00:00"
