"""The name table is a bijection, complete, and right in every dialect."""

from __future__ import annotations

import h5py
import pytest
import torch
import transformers

from lxmert_export.config import LxmertConfig
from lxmert_export.model import MODELS
from lxmert_export.signature import TASKS, Task
from lxmert_export.weight_names import BACKBONE, TIED_DECODER, weight_names
from parity_tests.golden_files import TRANSFORMERS

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
