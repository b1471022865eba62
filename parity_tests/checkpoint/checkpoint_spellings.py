"""One small checkpoint as the programs before us have written it: names spelled their ways, in files of their kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import weight_names
from parity_tests.fixtures.random_models import SMALL, lively_state

DIALECTS: tuple[Dialect, ...] = ("hf", "original", "tf")
CONFIG = SMALL.replace(hidden_size=64, num_attention_heads=1)  # heads as inferred: hidden size / 64


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def upstream_state(task: Task = "pretraining", config: LxmertConfig = CONFIG) -> dict[str, Tensor]:
    ours = lively_state(config, task)
    return {row.upstream: ours[row.ours] for row in weight_names(config, task)}


# How the names of one and the same checkpoint have been spelled by one program or another.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "hf": lambda name: name,
    "original": lambda name: name.replace("lxmert.", "bert."),
    "data-parallel": lambda name: "module." + name.replace("lxmert.", "bert."),
    "gamma-beta": lambda name: (
        name.replace("lxmert.", "bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta")
    ),
}


def save_bin(state: dict[str, Tensor], directory: Path, sharded: bool) -> None:
    if not sharded:
        torch.save(state, directory / "pytorch_model.bin")
        return
    names = list(state)
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({name: state[name].clone() for name in part}, directory / file)
    places = {name: file for file, part in halves.items() for name in part}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
