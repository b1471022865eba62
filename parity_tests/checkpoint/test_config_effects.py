"""What each field of a config changes, in transformers and here, is what docs/config.md says; layer_norm_eps by dialect."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import lxmert_export as lx
from lxmert_export.api.checkpoint import convert_checkpoint, load_checkpoint, save_checkpoint
from lxmert_export.artifact.manifest import sealed
from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.errors import CheckpointError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.weight_names import weight_names
from parity_tests.checkpoint.config_effects import effect, known_fields
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model, lively_state

ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
PAGE = Path(__file__).parents[2] / "docs" / "config.md"
TOLD = {name: (theirs, ours) for name, theirs, _, ours in ROW.findall(PAGE.read_text(encoding="utf-8"))}
EPS = 1e-2


def theirs(values: Mapping[str, Any]) -> Any:
    return transformers.LxmertForPreTraining(transformers.LxmertConfig(**values))


def ours(values: Mapping[str, Any]) -> Any:
    return lx.LxmertForPreTraining(LxmertConfig(**values))


def test_every_field_is_in_the_table() -> None:
    assert list(TOLD) == known_fields()
    own = set(inspect.get_annotations(transformers.LxmertConfig)) - {"model_type", "attribute_map"}
    generic = {"num_hidden_layers", "pad_token_id", "bos_token_id", "eos_token_id"}
    assert own <= {*TOLD, *generic}, "a field that transformers has added"


@pytest.mark.parametrize("name", known_fields())
def test_the_table_is_true(name: str) -> None:
    assert (effect(theirs, name), effect(ours, name)) == TOLD[name]


def with_eps(directory: Path, eps: float) -> Path:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layer_norm_eps": eps}))
    return directory


def pooled(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(**lively_inputs(TINY)).pooled_output
    return found


@pytest.mark.parametrize("dialect", ["hf", "original"])
def test_pytorch_dialects_are_computed_as_their_code_does(
    dialect: Dialect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = lively_model("model", TINY)
    save_checkpoint(model, tmp_path / "made", dialect=dialect)
    assert torch.equal(pooled(load_checkpoint(tmp_path / "made")), pooled(model)) and not caplog.messages
    read = load_checkpoint(with_eps(tmp_path / "made", EPS))
    assert torch.equal(pooled(read), pooled(model)) and read.config.layer_norm_eps == 1e-12
    line = "layer_norm_eps 0.01 of its config.json is not used: PyTorch's LXMERT computes with 1e-12"
    assert [line in message for message in caplog.messages] == [True]
    if dialect == "hf":
        their_model = transformers.LxmertModel.from_pretrained(tmp_path / "made")
        torch.testing.assert_close(pooled(their_model), pooled(read), rtol=1e-4, atol=1e-5)


def test_tensorflow_dialects_and_configs_made_in_python_as_they_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = lively_model("model", TINY.replace(layer_norm_eps=EPS))
    assert not torch.allclose(pooled(model), pooled(lively_model("model", TINY)), atol=1e-3)
    save_checkpoint(model, tmp_path / "h5", dialect="tf")
    torch.testing.assert_close(pooled(load_checkpoint(tmp_path / "h5")), pooled(model))
    state = lively_state(TINY, "model")
    named = {
        f"{row.tensorflow.split('/', 1)[1]}:0": (state[row.ours].t() if row.kind == "kernel" else state[row.ours])
        for row in weight_names(TINY, "model")
    }
    (tmp_path / "tf").mkdir()
    contiguous = {name: tensor.contiguous() for name, tensor in named.items()}
    save_file(contiguous, tmp_path / "tf" / "model.safetensors", metadata={"format": "tf"})
    model.config.save_pretrained(tmp_path / "tf")
    torch.testing.assert_close(pooled(load_checkpoint(tmp_path / "tf")), pooled(model))
    assert not caplog.messages


def test_converting_to_what_computes_something_else_names_both_results(tmp_path: Path) -> None:
    pytorch, tensorflow = tmp_path / "pytorch", tmp_path / "tensorflow"
    save_checkpoint(lively_model("model", TINY), pytorch, dialect="hf")
    save_checkpoint(lively_model("model", TINY.replace(layer_norm_eps=EPS)), tensorflow, dialect="tf")
    with pytest.raises(
        CheckpointError, match=r"computes with 1e-12, and TensorFlow's would compute with 0\.01: set it"
    ):
        convert_checkpoint(with_eps(pytorch, EPS), tmp_path / "out", dialect="tf")
    for dialect in ("hf", "original"):
        with pytest.raises(
            CheckpointError, match=rf"with layer_norm_eps 0\.01, .* compute the {dialect} .* with 1e-12"
        ):
            convert_checkpoint(tensorflow, tmp_path / "out", dialect=dialect)
    assert not (tmp_path / "out").exists()
    convert_checkpoint(pytorch, tmp_path / "original", dialect="original")  # which computes the same
    convert_checkpoint(with_eps(pytorch, 1e-12), tmp_path / "tf", dialect="tf")
    assert load_checkpoint(tmp_path / "tf").config.layer_norm_eps == 1e-12
    assert set(load_file(pytorch / "model.safetensors"))  # untouched


def test_an_artifact_of_another_eps_verifies_by_its_own_golden_file(exports: Exports, tmp_path: Path) -> None:
    copied = shutil.copytree(exports.lively("onnx", "question-answering", TINY).path, tmp_path / "older")
    manifest = copied / "manifest.json"
    values = json.loads(manifest.read_text())
    values["config"]["layer_norm_eps"] = EPS
    manifest.write_text(sealed(values), encoding="utf-8")
    assert lx.open_artifact(copied).manifest.config.layer_norm_eps == EPS and lx.verify(copied).passed
