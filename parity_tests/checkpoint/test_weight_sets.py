"""Old weights beside new ones in one directory are never read in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import lxmert_export as lx
from lxmert_export.api.checkpoint import load_checkpoint, save_checkpoint
from lxmert_export.checkpoint import weight_sets
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.spec.weight_names import WORD_EMBEDDING, weight_names
from parity_tests.checkpoint.checkpoint_spellings import save_bin
from parity_tests.fixtures.random_models import TINY, lively_model, lively_state

STATE = lively_state(TINY, "pretraining")
UPSTREAM = {row.upstream: STATE[row.ours] for row in weight_names(TINY, "pretraining")}


def saved(directory: Path) -> Path:
    """A checkpoint in safetensors, which leave the tied decoder out."""
    save_checkpoint(lively_model("pretraining", TINY), directory, dialect="hf")
    return directory


def changed(state: dict[str, Tensor], name: str = "lxmert.pooler.dense.bias") -> dict[str, Tensor]:
    return {**state, name: state[name] + 1e-6}


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "in shards"])
def test_the_same_weights_twice_are_one_line(sharded: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_bin(
        {name: tensor.half() if "encoder" in name else tensor for name, tensor in UPSTREAM.items()},
        saved(tmp_path / "in"),
        sharded,
    )
    read = read_checkpoint(tmp_path / "in")
    assert [path.name for path in read.source.paths] == ["model.safetensors"]
    other = "pytorch_model.bin.index.json" if sharded else "pytorch_model.bin"
    assert caplog.messages == [
        f"{tmp_path / 'in' / 'model.safetensors'}: read; {other} beside it holds the same weights"
    ]


@pytest.mark.parametrize("dialect", ["original", "tf"])
def test_the_same_weights_in_two_dialects(dialect: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint(lively_model("pretraining", TINY), tmp_path / "other", dialect=dialect)
    file = next(file for file in (tmp_path / "other").iterdir() if file.suffix in (".pth", ".h5"))
    file.rename(saved(tmp_path / "in") / file.name)
    read_checkpoint(tmp_path / "in")
    assert [f"{file.name} beside it holds the same weights" in message for message in caplog.messages] == [True]


def test_two_sets_that_differ_are_named_and_either_can_be_chosen(tmp_path: Path) -> None:
    new, old = saved(tmp_path / "in") / "model.safetensors", tmp_path / "in" / "BEST.pth"
    torch.save({name.replace("lxmert.", "bert.", 1): tensor for name, tensor in changed(UPSTREAM).items()}, old)
    os.utime(old, (1, 1))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "in")
    assert "model.safetensors and BEST.pth (model.safetensors is newer)" in str(caught.value)
    assert f"pooler.bias has other values; name the one to read: {new} or {old}" in str(caught.value)
    bias = [load_checkpoint(file).state_dict()["lxmert.pooler.bias"] for file in (new, old)]
    assert not torch.equal(*bias)
    with pytest.raises(CheckpointError, match="two sets of weights that differ"):
        lx.export("onnx", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_headers_are_compared_before_any_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(one: Tensor, other: Tensor) -> bool:
        raise AssertionError("values were compared")

    monkeypatch.setattr(weight_sets, "_equal", unexpected)
    directory = saved(tmp_path / "in")
    lacking = {name: tensor for name, tensor in UPSTREAM.items() if not name.startswith("answer_head")}
    save_bin(lacking, directory, sharded=False)
    with pytest.raises(CheckpointError, match=r"only one has answer_head\..* and 5 more tensors"):
        read_checkpoint(directory)
    longer = {**UPSTREAM, "lxmert.embeddings.position_embeddings.weight": torch.zeros(40, 32)}
    save_bin(longer, directory, sharded=False)
    with pytest.raises(CheckpointError, match=r"position\.weight is \[32, 32\] and \[40, 32\]"):
        read_checkpoint(directory)


def test_one_set_is_compared_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(weight_sets, "read_weights", None)
    monkeypatch.setattr(weight_sets, "_by_our_names", None)
    assert WORD_EMBEDDING in read_checkpoint(saved(tmp_path / "in")).tensors and not caplog.messages


def test_a_set_that_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (saved(tmp_path / "in") / "pytorch_model.bin").write_bytes(b"PK\x03\x04 damaged")
    torch.save({"features": torch.zeros(3)}, tmp_path / "in" / "features.pth")
    read_checkpoint(tmp_path / "in")
    assert [
        " not compared with pytorch_model.bin" in m or " not compared with features.pth" in m for m in caplog.messages
    ] == [True] * 2


TRAINING = ("rng_state.pth", "rng_state_0.pth", "optimizer.pt", "scheduler.pt", "training_args.bin", "optimizer.pth")


def test_a_trainings_state_is_never_taken_for_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = saved(tmp_path / "in")
    for name in TRAINING:
        torch.save({"state": torch.zeros(3)}, directory / name)
        with pytest.raises(CheckpointError, match=f"{name}: holds the state of a training, not weights"):
            read_checkpoint(directory / name)
    read_checkpoint(directory)
    assert not caplog.messages
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(directory)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("pytorch_model_fsdp_0/__0_0.distcp", r"as FSDP writes it: .*format_utils dcp_to_torch DIRECTORY model\.pth"),
        ("__1_0.distcp", "as FSDP writes it"),
        ("global_step20/mp_rank_00_model_states.pt", r"as DeepSpeed writes it: run 'python zero_to_fp32\.py \. whole'"),
    ],
)
def test_weights_in_parts_are_told_what_to_do(file: str, told: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"parts")
    (tmp_path / "rng_state_0.pth").write_bytes(b"state")
    with pytest.raises(CheckpointError, match=told):
        read_checkpoint(tmp_path)


def with_adapter(directory: Path) -> Path:
    """The files that peft writes beside or without the weights of the base model."""
    directory.mkdir(exist_ok=True)
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"base_model.model.lxmert.lora_A.weight": torch.zeros(2, 2)}, directory / "adapter_model.safetensors")
    return directory


def test_an_adapter_is_never_left_out_in_silence(tmp_path: Path) -> None:
    both = with_adapter(saved(tmp_path / "both"))
    with pytest.raises(CheckpointError, match=r"holds an adapter .* beside model\.safetensors.*merge_and_unload\(\)"):
        read_checkpoint(both)
    assert read_checkpoint(both / "model.safetensors").task == "pretraining"  # it can be meant
    with pytest.raises(
        CheckpointError, match=r"holds an adapter .* and not the weights that it adapts: load both with peft"
    ):
        read_checkpoint(with_adapter(tmp_path / "alone"))


def test_weights_under_other_names_are_compared_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = saved(tmp_path / "in")
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in UPSTREAM.items()}}, directory / "last.ckpt")
    torch.save({"features": torch.zeros(3)}, directory / "features.pt")  # no weights: nothing to say
    read_checkpoint(directory)
    assert ["last.ckpt beside it holds the same weights" in message for message in caplog.messages] == [True]
    torch.save(changed(UPSTREAM), directory / "best.pt")
    with pytest.raises(CheckpointError, match=r"two sets of weights that differ, model\.safetensors and best\.pt"):
        read_checkpoint(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"but best\.pt, features\.pt, last\.ckpt: name the file"):
        read_checkpoint(directory)


def test_shards_of_any_name_are_parts_of_their_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An index may list any names: such a shard is no set of its own, whichever set is read."""
    directory = tmp_path / "in"
    directory.mkdir()
    places = {name: f"part-{number % 2}.bin" for number, name in enumerate(UPSTREAM)}
    for shard in set(places.values()):
        torch.save({name: UPSTREAM[name] for name, place in places.items() if place == shard}, directory / shard)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    (directory / "config.json").write_text(json.dumps(TINY.to_dict()))
    read = read_checkpoint(directory)
    assert sorted(path.name for path in read.source.paths) == ["part-0.bin", "part-1.bin"] and not caplog.messages
    (saved(tmp_path / "whole") / "model.safetensors").rename(directory / "model.safetensors")
    read_checkpoint(directory)
    assert caplog.messages == [
        f"{directory / 'model.safetensors'}: read; pytorch_model.bin.index.json beside it holds the same weights"
    ]


def test_a_directory_without_weights_says_what_it_is(tmp_path: Path) -> None:
    saved(tmp_path / "run" / "checkpoint-10")
    with pytest.raises(CheckpointError, match=r"directories in it do \(checkpoint-10\): name one of them"):
        read_checkpoint(tmp_path / "run")
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        save_file({"a": torch.zeros(1)}, shards / name)
    with pytest.raises(
        CheckpointError, match=r"holds shards .* and not model\.safetensors\.index\.json, which lists them"
    ):
        read_checkpoint(shards)
    with pytest.raises(CheckpointError, match="is one shard of several: name its directory"):
        read_checkpoint(shards / name)
