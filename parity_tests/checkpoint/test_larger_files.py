"""The LXMERT is found in a file whatever it is nested in, whatever stands before its names, whatever lies beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lxmert_export.api.inspect import inspect_checkpoint
from lxmert_export.checkpoint.read import Checkpoint, read_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.model.lxmert import LxmertForQuestionAnswering
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import weight_names
from parity_tests.checkpoint.checkpoint_spellings import same
from parity_tests.fixtures.random_models import TINY, lively_model, lively_state

pytestmark = pytest.mark.quick

TASK: Task = "question-answering"
ROWS = weight_names(TINY, TASK)
STATE = lively_state(TINY, TASK)
HF = {row.upstream: STATE[row.ours] for row in ROWS}
ORIGINAL = {
    name.replace("lxmert.", "lxrt_encoder.model.bert.").replace("answer_head.", ""): tensor
    for name, tensor in HF.items()
}
BARE = {name.removeprefix("lxmert."): tensor for name, tensor in HF.items() if name.startswith("lxmert.")}


def prefixed(prefix: str, state: dict[str, Tensor] = HF) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def read(stored: object, directory: Path, **options: Any) -> Checkpoint:
    torch.save(stored, directory / "last.ckpt")
    return read_checkpoint(directory / "last.ckpt", num_attention_heads=TINY.num_attention_heads, **options)


def optimizer() -> dict[str, Any]:
    """An optimizer's state_dict after one step, with tensors of the sizes of weights."""
    layer = nn.Linear(3, 3)
    adam = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    adam.step()
    return adam.state_dict()


FOUND: dict[str, tuple[Callable[[], object], str]] = {
    "torch.compile": (lambda: prefixed("_orig_mod."), "_orig_mod."),
    "DDP of torch.compile": (lambda: prefixed("module._orig_mod."), "module._orig_mod."),
    "an attribute": (lambda: prefixed("net."), "net."),
    "a trainer": (
        lambda: {"model": HF, "optimizer": optimizer(), "epoch": 3, "rng_state": torch.get_rng_state(), "args": {"lr": 0.1}},
        "model.",
    ),
    "Lightning": (
        lambda: {
            "state_dict": prefixed("model."),
            "optimizer_states": [optimizer()],
            "hyper_parameters": {"lr": 1e-5},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.7)}},
        },
        "state_dict.model.",
    ),
    "DeepSpeed": (lambda: {"module": prefixed("net."), "dp_world_size": 8, "buffer_names": []}, "module.net."),
    "four deep": (lambda: {"model": {"state_dict": prefixed("module.net.model.")}}, "model.state_dict.module.net.model."),
    "original, compiled": (lambda: {"net": prefixed("module._orig_mod.", ORIGINAL)}, "net.module._orig_mod."),
    "wrapped inside": (
        lambda: {name.replace("layer.0.", "layer.0._fsdp_wrapped_module."): t for name, t in HF.items()},
        "_fsdp_wrapped_module.",
    ),
    "a compiled backbone beside its head": (
        lambda: {name.replace("lxmert.", "lxmert._orig_mod."): tensor for name, tensor in HF.items()},
        "_orig_mod.",
    ),
    "two names, one dictionary": (lambda: {"best": HF, "last": HF}, "best."),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found_and_what_was_stripped_is_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored, stripped = FOUND[name]
    checkpoint = read(stored(), tmp_path)
    assert checkpoint.task == TASK
    assert same(checkpoint.tensors, STATE)
    assert checkpoint.source.stripped == stripped
    assert f"{tmp_path / 'last.ckpt'}: '{stripped}' was stripped from the names of its tensors" in caplog.messages


def test_nothing_is_said_of_a_file_as_it_was_published(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for state in (HF, ORIGINAL, BARE):
        assert read(state, tmp_path).source.stripped == ""
    assert not caplog.messages


@pytest.mark.parametrize("prefix", ["encoder.", "bert_model.", "net.lxmert."])
def test_a_bare_backbone_inside_something(prefix: str, tmp_path: Path) -> None:
    checkpoint = read(prefixed(prefix, BARE), tmp_path)
    assert checkpoint.task == "model" and same(checkpoint.tensors, lively_state(TINY, "model"))


@pytest.mark.parametrize("task", TASKS)
def test_our_own_state_dict_is_read_back(task: Task, tmp_path: Path) -> None:
    model = lively_model(task, TINY)
    TINY.save_pretrained(tmp_path)
    for prefix in ("", "net.module."):
        checkpoint = read({"model": prefixed(prefix, dict(model.state_dict()))}, tmp_path)
        assert (checkpoint.task, checkpoint.source.dialect) == (task, "lxmert-export")
        assert same(checkpoint.tensors, lively_state(TINY, task))
    (tmp_path / "config.json").unlink()
    inferred = read(model.state_dict(), tmp_path).config
    assert weight_names(inferred, task) == weight_names(TINY, task)


@pytest.mark.parametrize(
    ("stored", "listed"),
    [
        ({"model": HF, "ema": {name: tensor + 1 for name, tensor in HF.items()}}, "2 LXMERTs: model.lxmert., ema.lxmert."),
        ({**HF, **prefixed("teacher.", BARE)}, "2 LXMERTs: lxmert., teacher."),
    ],
)  # fmt: skip
def test_several_are_listed(stored: object, listed: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="save the state_dict of one of them") as caught:
        read(stored, tmp_path)
    assert listed in str(caught.value)


PARTS: dict[str, tuple[Callable[[], object], str]] = {
    "MMF's classifier": (
        lambda: {"model": {**prefixed("model.", HF), "model.classifier.0.weight": torch.ones(2, 2)}},
        "model.model.classifier (1 tensor)",
    ),
    "a detector beside it": (
        lambda: {"net": HF, "detector": {"conv.weight": torch.ones(2, 2), "conv.bias": torch.ones(2), "seen": torch.tensor(3)}},
        "detector (2 tensors)",
    ),
    "a head of its own": (
        lambda: {"lxmert": {"lxmert": BARE}, "head": {"weight": torch.ones(2, 2)}},
        "head (1 tensor)",
    ),
    "beside a bare backbone": (lambda: {**BARE, "adapter.down.weight": torch.ones(2, 2)}, "adapter (1 tensor)"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_other_parts_are_named_and_can_be_left_out(name: str, tmp_path: Path) -> None:
    stored, listed = PARTS[name]
    with pytest.raises(CheckpointError, match="ignore_other_parts=True goes on without them") as caught:
        read(stored(), tmp_path)
    assert listed in str(caught.value)
    checkpoint = read(stored(), tmp_path, ignore_other_parts=True)
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in checkpoint.tensors.items())
    assert checkpoint.source.other_parts == (listed.split(" (")[0],)
    shown = inspect_checkpoint(tmp_path / "last.ckpt", num_attention_heads=TINY.num_attention_heads)
    assert shown["other_parts"] == [listed.split(" (")[0]]


def test_what_no_lxmert_has_is_no_other_part(tmp_path: Path) -> None:
    stored = {**HF, "lxmert.adapter.weight": torch.ones(2, 2)}
    with pytest.raises(CheckpointError, match="unexpected: lxmert.adapter.weight"):
        read(stored, tmp_path, ignore_other_parts=True)


def test_known_buffers(tmp_path: Path) -> None:
    ids = {"lxmert.embeddings.position_ids": torch.arange(TINY.max_position_embeddings)[None]}
    zeros = {"lxmert.embeddings.token_type_ids": torch.zeros(1, TINY.max_position_embeddings, dtype=torch.int64)}
    assert same(read({**HF, **ids, **zeros}, tmp_path).tensors, STATE)
    save_file({**HF, **ids}, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path / "model.safetensors", num_attention_heads=TINY.num_attention_heads).task == TASK
    with pytest.raises(CheckpointError, match="position_ids: an LXMERT counts positions from 0"):
        read({**HF, "lxmert.embeddings.position_ids": torch.arange(2, 22)[None]}, tmp_path)


def test_a_meta_tensor_has_no_values(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = LxmertForQuestionAnswering(TINY)
    with pytest.raises(CheckpointError, match="weight has no values: it was saved from the meta device"):
        read(model.state_dict(), tmp_path)


def test_a_dictionary_that_holds_itself(tmp_path: Path) -> None:
    stored: dict[str, Any] = {"model": HF}
    stored["again"] = stored
    assert same(read(stored, tmp_path).tensors, STATE)


def test_an_error_names_the_file_in_the_current_directory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"student": HF, "teacher": prefixed("net.")}, "two.pt")
    with pytest.raises(CheckpointError, match=r"^two.pt: holds 2 LXMERTs"):
        read_checkpoint("two.pt")
