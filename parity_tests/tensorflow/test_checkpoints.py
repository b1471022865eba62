"""The Keras models read checkpoints of every dialect, write them again, and say in one line what does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from converters.tensorflow_model.model import MODELS
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.api.checkpoint import load_checkpoint, save_checkpoint
from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.errors import ArtifactError, CheckpointError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING, weight_names
from parity_tests.checkpoint.checkpoint_spellings import CONFIG, DIALECTS, SPELLINGS, same, save_bin, upstream_state
from parity_tests.fixtures.golden_files import CHECKPOINTS
from parity_tests.fixtures.keras_models import as_numpy, twin_of
from parity_tests.fixtures.missing_modules import without
from parity_tests.fixtures.random_models import SMALL, TINY, inputs_for, lively_model, lively_state

ROOT = Path(__file__).parent.parent.parent


def weights(model: PreTrainedTFLxmert) -> dict[str, Tensor]:
    """Its weights as PyTorch would have them."""
    found = {
        weight.ours: torch.from_numpy(variable.numpy().T.copy() if weight.kind == "kernel" else variable.numpy())
        for weight, variable in model.named_variables()
    }
    if model.task == "pretraining" and model.config.tie_word_embeddings:
        found[TIED_DECODER] = found[WORD_EMBEDDING]
    return found


# Every task, and every dialect for the task with most names: whatever the dialect is, Keras reads and gives PyTorch's names.
@pytest.mark.parametrize(
    ("task", "dialect"),
    [*((task, "hf") for task in TASKS), *(("pretraining", dialect) for dialect in DIALECTS if dialect != "hf")],
)
def test_what_either_writes_the_other_reads(task: Task, dialect: Dialect, tmp_path: Path) -> None:
    save_checkpoint(lively_model(task), tmp_path / "torch", dialect=dialect)
    model = MODELS[task].from_pretrained(tmp_path / "torch")
    assert model.config.replace(extra={}) == SMALL
    assert same(weights(model), lively_state(SMALL, task))
    model.save_pretrained(tmp_path / "keras", dialect=dialect)
    back = load_checkpoint(tmp_path / "keras")
    assert back.task == task and back.config.replace(extra={}) == SMALL
    assert same(dict(back.state_dict()), dict(lively_model(task).state_dict()))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_other_peoples_checkpoints(name: str) -> None:
    reference: Any = load_checkpoint(CHECKPOINTS[name])
    model = MODELS[reference.task].from_pretrained(CHECKPOINTS[name])
    assert same(weights(model), dict(reference.state_dict()))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_pth_file(spelling: str, tmp_path: Path) -> None:
    file = tmp_path / "Epoch20_LXRT.pth"
    torch.save({SPELLINGS[spelling](name): tensor for name, tensor in upstream_state().items()}, file)
    assert same(weights(MODELS["pretraining"].from_pretrained(file)), lively_state(CONFIG, "pretraining"))


@pytest.mark.parametrize("sharded", [False, True])
def test_bin_files_whole_and_sharded(sharded: bool, tmp_path: Path) -> None:
    CONFIG.save_pretrained(tmp_path)
    save_bin(upstream_state(), tmp_path, sharded)
    assert same(weights(MODELS["pretraining"].from_pretrained(tmp_path)), lively_state(CONFIG, "pretraining"))


def test_heads_may_be_counted_by_the_caller(tmp_path: Path) -> None:
    save_file(upstream_state("model"), tmp_path / "model.safetensors")
    model = MODELS["model"].from_pretrained(tmp_path / "model.safetensors", num_attention_heads=8)
    assert model.config.num_attention_heads == 8


def test_a_checkpoint_of_more_heads_than_are_needed(tmp_path: Path) -> None:
    save_checkpoint(lively_model("pretraining"), tmp_path / "all")
    whole = lively_state(SMALL, "pretraining")
    for task in ("question-answering", "model"):
        found = weights(MODELS[task].from_pretrained(tmp_path / "all"))
        assert same(found, {name: whole[name] for name in found})


def test_a_missing_head_is_told_of_or_made_anew(tmp_path: Path) -> None:
    save_checkpoint(lively_model("model"), tmp_path / "backbone")
    answering = MODELS["question-answering"]
    with pytest.raises(CheckpointError, match="answer_head") as told:
        answering.from_pretrained(tmp_path / "backbone")
    assert "\n" not in str(told.value)
    keras.utils.set_random_seed(0)
    model = answering.from_pretrained(tmp_path / "backbone", fresh_heads=True)
    found, backbone = weights(model), lively_state(SMALL, "model")
    assert same({name: found[name] for name in backbone}, backbone)
    head = {weight.ours: weight.kind for weight in weight_names(SMALL, "question-answering")[len(backbone) :]}
    for name, kind in head.items():  # as PyTorch's begin: normal of initializer_range, or zeros, or ones
        expected = {"kernel": SMALL.initializer_range, "vector": 0.0, "shift": 0.0, "gain": 1.0}[kind]
        measured = found[name].std() if kind == "kernel" else found[name].mean()
        assert float(measured) == pytest.approx(expected, abs=0.1 * SMALL.initializer_range), name


def test_initial_weights_are_drawn_as_pytorchs() -> None:
    keras.utils.set_random_seed(0)
    for weight, variable in MODELS["pretraining"](SMALL.replace(hidden_size=64)).named_variables():
        values = variable.numpy()
        if weight.kind in ("gain", "shift", "vector"):
            assert np.array_equal(values, np.full_like(values, weight.kind == "gain")), weight.ours
            continue
        if weight.kind != "kernel":
            assert not values[0].any(), weight.ours  # what pads is nothing
            values = values[1:]
        if values.size > 500:
            assert values.std() == pytest.approx(SMALL.initializer_range, rel=0.15), weight.ours


@pytest.mark.parametrize("dtype", [None, "float64", "mixed_float16", "float16", "bfloat16"])
def test_any_stored_dtype_becomes_the_policys(dtype: str | None, tmp_path: Path) -> None:
    half = lively_model("question-answering", TINY).bfloat16()
    save_checkpoint(half, tmp_path / "half")
    model = MODELS["question-answering"].from_pretrained(tmp_path / "half", dtype=dtype)
    assert model.dtype_policy.name == (dtype or "float32")
    wanted = half.answer_head.answers.weight.double().detach().numpy().T
    stored = model.answer_head.answers.kernel.numpy().astype(np.float64)
    # bfloat16 has 8 digits: float16 holds 11, and none of these is too small for it but by 2^-24.
    np.testing.assert_allclose(stored, wanted, rtol=0, atol=2.0**-24)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64", "mixed_float16"])
def test_models_of_any_policy_are_written(policy: str, tmp_path: Path) -> None:
    """PyTorch reads the dtypes that the variables have; the norms' are float32 in the half precisions."""
    model = twin_of(lively_model("nlvr2", TINY), policy)
    model.save_pretrained(tmp_path / "written")
    back: Any = load_checkpoint(tmp_path / "written")
    found = {weight.ours: variable for weight, variable in model.named_variables()}
    for name, parameter in back.state_dict().items():
        assert str(parameter.dtype) == f"torch.{found[name].dtype}", name
    again = MODELS["nlvr2"].from_pretrained(tmp_path / "written", dtype=policy)
    inputs = as_numpy(inputs_for("nlvr2"))
    assert np.array_equal(again(inputs).logits, model(inputs).logits)


def test_an_untied_decoder_is_written_and_read(tmp_path: Path) -> None:
    untied = SMALL.replace(tie_word_embeddings=False)
    model = twin_of(lively_model("pretraining", untied), "float32")
    for dialect in DIALECTS[:2]:
        model.save_pretrained(tmp_path / dialect, dialect=dialect)
        assert same(
            weights(MODELS["pretraining"].from_pretrained(tmp_path / dialect)), lively_state(untied, "pretraining")
        )


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    model = twin_of(lively_model("model"), "float32")
    model.save_pretrained(tmp_path / "one")
    with pytest.raises(ArtifactError, match="exists already"):
        model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "one", overwrite=True)


def test_an_unknown_dialect_is_refused(tmp_path: Path) -> None:
    model = twin_of(lively_model("model"), "float32")
    with pytest.raises(CheckpointError, match="unknown dialect 'onnx'; choose from hf, original, tf"):
        model.save_pretrained(tmp_path / "out", dialect="onnx")
    assert not any(tmp_path.iterdir())


def test_without_pytorch_the_pip_line_is_named(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9, "l_layers": 1,
             "x_layers": 1, "r_layers": 1, "visual_feat_dim": 4}  # fmt: skip
    program = (
        f"{without('torch')}sys.path.insert(0, {str(ROOT)!r})\n"
        "from converters.tensorflow_model import TFLxmertModel\n"
        "from lxmert_export.spec.config import LxmertConfig\n"
        "from lxmert_export.errors import MissingExtra\n"
        f"model = TFLxmertModel(LxmertConfig(**{sizes!r}))\n"
        "for step in (lambda: TFLxmertModel.from_pretrained('demo'), lambda: model.save_pretrained('written')):\n"
        "    try:\n        step()\n    except MissingExtra as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = done.stdout.strip().splitlines()
    assert len(told) == 2 and all("pip install 'lxmert-export[torch]'" in line for line in told)
    assert not any(tmp_path.iterdir())


# Configs whose models have other variables than SMALL's.
CONFIGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "untied": {"tie_word_embeddings": False},
    "no answers": {"task_qa": False},
    "no objects": {"task_obj_predict": False},
    "some objects": {"visual_attr_loss": False},
    "ten layers": {"l_layers": 11, "x_layers": 1, "r_layers": 2},
}


@pytest.mark.parametrize(
    ("config", "task"),
    [*(("as it is", task) for task in TASKS), *((name, "pretraining") for name in CONFIGS if name != "as it is")],
)
def test_paths_are_the_tables_one_for_one(config: str, task: Task) -> None:
    changed: LxmertConfig = SMALL.replace(**CONFIGS[config])
    tied = {TIED_DECODER} if changed.tie_word_embeddings else set()
    rows = [row for row in weight_names(changed, task) if row.ours not in tied]
    prefix = "lxmert/" if task == "model" else ""
    variables = MODELS[task](changed).variables
    shapes = {row.variable.removeprefix(prefix): row.shape[::-1] if row.kind == "kernel" else row.shape for row in rows}
    assert {variable.path: tuple(variable.shape) for variable in variables} == shapes
    assert len(variables) == len(rows) == len(shapes)
