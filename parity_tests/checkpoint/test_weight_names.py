"""The name table is a bijection, complete, and right in every dialect."""

from __future__ import annotations

import h5py
import pytest
import torch
import transformers
from torch import nn

from lxmert_export.model.lxmert import MODELS
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, same_network, weight_names
from parity_tests.fixtures.golden_files import TRANSFORMERS
from parity_tests.fixtures.random_models import SMALL
from parity_tests.fixtures.their_models import their_model

pytestmark = pytest.mark.quick

COUNTS: dict[Task, int] = {"model": 449, "pretraining": 473, "question-answering": 455, "nlvr2": 455}


@pytest.mark.parametrize("task", TASKS)
def test_table_is_the_state_dict(task: Task) -> None:
    config = LxmertConfig()
    with torch.device("meta"):
        state = MODELS[task](config).state_dict()
    prefix = BACKBONE if task == "model" else ""
    rows = weight_names(config, task)
    assert [row.ours for row in rows] == [prefix + name for name in state]
    assert [row.shape for row in rows] == [tuple(tensor.shape) for tensor in state.values()]
    assert len(rows) == COUNTS[task]


@pytest.mark.parametrize("task", TASKS)
def test_every_column_is_unique(task: Task) -> None:
    rows = weight_names(LxmertConfig(), task)
    for column in ("ours", "upstream", "tensorflow"):
        assert len({getattr(row, column) for row in rows}) == len(rows)


@pytest.mark.parametrize("task", ["model", "pretraining", "question-answering"])
def test_upstream_names_are_transformers(task: Task) -> None:
    theirs = {
        "model": transformers.LxmertModel,
        "pretraining": transformers.LxmertForPreTraining,
        "question-answering": transformers.LxmertForQuestionAnswering,
    }[task]
    with torch.device("meta"):
        names = list(theirs(transformers.LxmertConfig()).state_dict())
    prefix = BACKBONE if task == "model" else ""
    assert [row.upstream.removeprefix(prefix) for row in weight_names(LxmertConfig(), task)] == names


ODD = (
    SMALL,
    SMALL.replace(l_layers=11, x_layers=1, r_layers=0, visual_pos_dim=6),
    SMALL.replace(task_obj_predict=False, task_qa=False),
    SMALL.replace(visual_attr_loss=False, visual_feat_loss=False),
    SMALL.replace(tie_word_embeddings=False),
)


@pytest.mark.parametrize("config", ODD)
@pytest.mark.parametrize("task", TASKS)
def test_table_of_odd_configs_is_the_state_dict(task: Task, config: LxmertConfig) -> None:
    with torch.device("meta"):
        state = MODELS[task](config).state_dict()
    prefix = BACKBONE if task == "model" else ""
    rows = weight_names(config, task)
    assert {row.ours: row.shape for row in rows} == {prefix + name: tuple(t.shape) for name, t in state.items()}
    for column in ("ours", "upstream", "tensorflow"):
        assert len({getattr(row, column) for row in rows}) == len(rows)
    if task != "nlvr2":
        with torch.device("meta"):
            theirs = their_model(task, config).state_dict()
        shapes = {row.upstream.removeprefix(prefix): row.shape for row in rows}
        assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.items()}


def test_kinds_are_what_the_modules_hold() -> None:
    """From a row's kind follow its TensorFlow name, and whether it is stored transposed there."""
    module_of = {"kernel": nn.Linear, "embedding": nn.Embedding, "word_embedding": nn.Embedding, "gain": nn.LayerNorm,
                 "shift": nn.LayerNorm}  # fmt: skip
    model = MODELS["pretraining"](SMALL)
    for row in weight_names(SMALL, "pretraining"):
        owner = model.get_submodule(row.ours.rpartition(".")[0])
        if row.kind == "vector":
            assert row.ours.endswith(".bias") and not isinstance(owner, nn.LayerNorm)
        else:
            assert isinstance(owner, module_of[row.kind]), row
    assert [row.ours for row in weight_names(SMALL, "pretraining") if row.kind == "word_embedding"] == [WORD_EMBEDDING]


def test_tensorflow_shapes_are_those_that_tflxmert_wrote() -> None:
    with h5py.File(TRANSFORMERS / "tf_model.h5") as file:
        shapes = {
            name.split("/", 1)[1].removesuffix(":0"): file[group][name].shape
            for group in file for name in file[group].attrs["weight_names"]
        }  # fmt: skip
    for row in weight_names(LxmertConfig.from_pretrained(TRANSFORMERS), "pretraining"):
        if row.ours != TIED_DECODER:
            assert shapes[row.tensorflow] == (row.shape[::-1] if row.kind == "kernel" else row.shape), row


def test_tensorflow_names_are_those_that_tflxmert_wrote() -> None:
    with h5py.File(TRANSFORMERS / "tf_model.h5") as file:
        written = {
            name.split("/", 1)[1].removesuffix(":0") for group in file for name in file[group].attrs["weight_names"]
        }
    config = LxmertConfig.from_pretrained(TRANSFORMERS)
    rows = weight_names(config, "pretraining")
    assert {row.tensorflow for row in rows if row.ours != TIED_DECODER} == written


def test_unique_parameter_counts_are_the_published_ones() -> None:
    def parameters(task: Task, answers: int) -> int:
        rows = weight_names(LxmertConfig(num_qa_labels=answers), task)
        return sum(torch.Size(row.shape).numel() for row in rows if row.ours != TIED_DECODER)

    assert parameters("pretraining", 9500) == 228_051_752
    assert parameters("question-answering", 3129) == 213_930_297
    assert parameters("question-answering", 1842) == 211_952_178
    assert parameters("model", 9500) == 207_936_768


def test_same_network_looks_at_what_computes() -> None:
    config = LxmertConfig()
    assert same_network(config, config.replace(task_qa=False, hidden_dropout_prob=0.0), "question-answering")
    assert not same_network(config, config.replace(task_qa=False), "pretraining")
    assert not same_network(config, config.replace(num_attention_heads=6), "model")
    assert not same_network(config, config.replace(layer_norm_eps=1e-5), "model")
    assert not same_network(config, config.replace(num_qa_labels=3), "question-answering")
    assert same_network(config, config.replace(num_qa_labels=3), "retrieval")
