"""Every dialect reads, every round trip is exact to the bit, and transformers reads what we write."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import lxmert_export as lx
from lxmert_export.api.checkpoint import convert_checkpoint, load_checkpoint, save_checkpoint
from lxmert_export.api.inspect import inspect_checkpoint
from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING, weight_names
from parity_tests.checkpoint.checkpoint_spellings import CONFIG, DIALECTS, SPELLINGS, same, save_bin, upstream_state
from parity_tests.fixtures.golden_files import ORIGINALS, TRANSFORMERS, original
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model, lively_state

GOLDEN_TASKS: dict[str, tuple[Task, Dialect]] = {
    "pretraining": ("pretraining", "original"),
    "pretraining_dataparallel": ("pretraining", "original"),
    "vqa": ("question-answering", "original"),
    "nlvr2": ("nlvr2", "original"),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_original_recordings(name: str) -> None:
    checkpoint = read_checkpoint(original(name))
    assert (checkpoint.task, checkpoint.source.dialect) == GOLDEN_TASKS[name]
    assert len(checkpoint.source.sha256) == 64


def test_one_checkpoint_as_bin_and_as_h5() -> None:
    from_bin, from_h5 = read_checkpoint(TRANSFORMERS), read_checkpoint(TRANSFORMERS / "tf_model.h5")
    assert (from_bin.source.dialect, from_h5.source.dialect) == ("hf", "tf")
    assert same(from_bin.tensors, from_h5.tensors)


# Every pair of dialects for the task that has most heads; for the others, every dialect is read and written once each.
ROUND_TRIPS: list[tuple[Task, Dialect, Dialect]] = [
    *(("pretraining", first, second) for first in DIALECTS for second in DIALECTS),
    *((task, DIALECTS[n - 1], DIALECTS[n]) for task in TASKS if task != "pretraining" for n in range(len(DIALECTS))),
]


@pytest.mark.parametrize(("task", "first", "second"), ROUND_TRIPS)
def test_round_trips_are_exact(task: Task, first: Dialect, second: Dialect, tmp_path: Path) -> None:
    model = lively_model(task)
    save_checkpoint(model, tmp_path / "one", dialect=first)
    save_checkpoint(load_checkpoint(tmp_path / "one", task=task), tmp_path / "two", dialect=second)
    back = load_checkpoint(tmp_path / "two")
    assert back.task == task
    assert same(dict(back.state_dict()), dict(model.state_dict()))
    assert back.config.replace(extra={}) == model.config


@pytest.mark.parametrize("dialect", ["onnx", "HF", "", None, []])
def test_an_unknown_dialect_is_refused(dialect: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown dialect .*; choose from hf, original, tf"):
        save_checkpoint(lively_model("model"), tmp_path / "out", dialect=dialect)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_not_finite_is_refused_under_the_name_that_was_given(dialect: Dialect, tmp_path: Path) -> None:
    model = lively_model("model")
    model.pooler.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite: lxmert.pooler.weight") as caught:
        save_checkpoint(model, tmp_path / "out", dialect=dialect)
    assert str(caught.value).startswith(str(tmp_path / "out")) and ".writing" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_stored_dtype_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    model = lively_model("question-answering").to(dtype)
    for dialect in ("hf", "original"):
        save_checkpoint(model, tmp_path / dialect, dialect=dialect)
        assert same(dict(load_checkpoint(tmp_path / dialect).state_dict()), dict(model.state_dict()))
    assert next(load_checkpoint(tmp_path / "hf", dtype=torch.float32).parameters()).dtype == torch.float32


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_pth_spellings_and_serialisations(spelling: str, zipped: bool, tmp_path: Path) -> None:
    spelled = OrderedDict((SPELLINGS[spelling](name), tensor) for name, tensor in upstream_state().items())
    torch.save(spelled, tmp_path / "Epoch20_LXRT.pth", _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(tmp_path / "Epoch20_LXRT.pth")
    assert checkpoint.task == "pretraining"
    assert same(checkpoint.tensors, lively_state(CONFIG, "pretraining"))
    assert checkpoint.config.with_guess(False) == CONFIG  # read off names and shapes: no config.json here


@pytest.mark.parametrize("inner", ["", "module."])
@pytest.mark.parametrize("task", ["question-answering", "nlvr2"])
def test_fine_tuned_snapshots(task: Task, inner: str, tmp_path: Path) -> None:
    spelled = {
        name.replace("lxmert.", f"lxrt_encoder.model.{inner}bert.").replace("answer_head.", ""): tensor
        for name, tensor in upstream_state(task).items()
    }
    torch.save(spelled, tmp_path / "LAST.pth")
    checkpoint = read_checkpoint(tmp_path)
    assert (checkpoint.task, checkpoint.source.dialect) == (task, "original")
    assert same(checkpoint.tensors, lively_state(CONFIG, task))


@pytest.mark.parametrize("prefix", ["", "lxmert.", "bert.", "module.bert."])
def test_bare_backbone(prefix: str, tmp_path: Path) -> None:
    spelled = {prefix + name.removeprefix("lxmert."): tensor for name, tensor in upstream_state("model").items()}
    save_file(spelled, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.task == "model"
    assert same(checkpoint.tensors, lively_state(CONFIG, "model"))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_what_transformers_saves(safe: bool, sharded: bool, tmp_path: Path) -> None:
    config = {
        k: v for k, v in CONFIG.to_dict().items() if k not in ("num_hidden_layers", "model_type", "layer_norm_eps")
    }
    theirs = transformers.LxmertForPreTraining(transformers.LxmertConfig(**config)).eval()
    if safe:
        theirs.save_pretrained(tmp_path, max_shard_size="100KB" if sharded else "1GB")
    else:  # as 4.x saved it: transformers 5 writes safetensors only
        theirs.config.save_pretrained(tmp_path)
        save_bin(theirs.state_dict(), tmp_path, sharded)
    checkpoint = read_checkpoint(tmp_path)
    assert len(checkpoint.source.paths) > 1 if sharded else len(checkpoint.source.paths) == 1
    state = theirs.state_dict()
    assert all(torch.equal(checkpoint.tensors[r.ours], state[r.upstream]) for r in weight_names(CONFIG, "pretraining"))
    assert checkpoint.tensors[TIED_DECODER] is checkpoint.tensors[WORD_EMBEDDING]


def test_tensorflow_safetensors(tmp_path: Path) -> None:
    rows = [row for row in weight_names(CONFIG, "pretraining") if row.ours != TIED_DECODER]
    state = lively_state(CONFIG, "pretraining")
    stored = {
        f"{row.tensorflow}:0": (state[row.ours].t() if row.kind == "kernel" else state[row.ours]).contiguous()
        for row in rows
    }
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "tf"})
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.source.dialect == "tf"
    assert same(checkpoint.tensors, state)


@pytest.mark.parametrize("task", ["model", "pretraining", "question-answering"])
def test_transformers_loads_what_we_write_and_computes_the_same(task: Task, tmp_path: Path) -> None:
    classes: dict[Task, Any] = {
        "model": transformers.LxmertModel,
        "pretraining": transformers.LxmertForPreTraining,
        "question-answering": transformers.LxmertForQuestionAnswering,
    }
    model = lively_model(task)
    save_checkpoint(model, tmp_path / "hf")
    theirs, told = classes[task].from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    for one, other in zip(model(**lively_inputs()).to_tuple(), theirs(**lively_inputs()).to_tuple(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_original_file_shares_the_tied_decoder(tmp_path: Path) -> None:
    model = lively_model("pretraining")
    save_checkpoint(model, tmp_path / "pth", dialect="original")
    loaded = torch.load(tmp_path / "pth" / "model_LXRT.pth", weights_only=True)
    decoder, words = loaded["cls.predictions.decoder.weight"], loaded["bert.embeddings.word_embeddings.weight"]
    assert decoder.data_ptr() == words.data_ptr()


def test_a_separate_but_equal_decoder_is_fine_and_an_unequal_one_may_be_meant(tmp_path: Path) -> None:
    state = upstream_state()
    state["cls.predictions.decoder.weight"] = state["cls.predictions.decoder.weight"].clone()
    save_file(state, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.tensors[TIED_DECODER] is checkpoint.tensors[WORD_EMBEDDING]
    state["cls.predictions.decoder.weight"][3, 5] += 1
    save_file(state, tmp_path / "model.safetensors")
    CONFIG.replace(tie_word_embeddings=False).save_pretrained(tmp_path)
    untied = load_checkpoint(tmp_path)
    assert untied.masked_language_head.decoder.weight[3, 5] != untied.lxmert.embeddings.word.weight[3, 5]


def test_tasks_and_unused_heads(tmp_path: Path) -> None:
    save_checkpoint(lively_model("pretraining"), tmp_path / "all")
    answers = read_checkpoint(tmp_path / "all", task="question-answering")
    assert set(answers.unused) == {"masked_language_head", "match_head", "object_head"}
    assert set(read_checkpoint(tmp_path / "all", task="model").unused) == {*answers.unused, "answer_head"}


def test_a_head_can_be_asked_for_fresh(tmp_path: Path) -> None:
    save_checkpoint(lively_model("model"), tmp_path / "backbone")
    model = load_checkpoint(tmp_path / "backbone", task="question-answering", fresh_heads=True)
    assert torch.equal(model.lxmert.pooler.weight, lively_model("model").pooler.weight)
    assert 0.01 < model.answer_head.answers.weight.std() < 0.03
    fresh = load_checkpoint(tmp_path / "backbone", task="pretraining", fresh_heads=True)
    assert fresh.masked_language_head.decoder.weight is fresh.lxmert.embeddings.word.weight


def test_weights_are_mapped_not_copied(tmp_path: Path) -> None:
    save_checkpoint(lively_model("model"), tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    stored = load_file(file)
    model = load_checkpoint(tmp_path / "hf")
    assert torch.equal(model.pooler.weight, stored["pooler.dense.weight"])
    with Path("/proc/self/maps").open() as maps:
        assert str(file) in maps.read()


def test_number_of_heads_can_be_given(tmp_path: Path) -> None:
    torch.save(upstream_state("model"), tmp_path / "x_LXRT.pth")
    assert read_checkpoint(tmp_path / "x_LXRT.pth").config.num_attention_heads == 1
    assert read_checkpoint(tmp_path / "x_LXRT.pth", num_attention_heads=8).config.num_attention_heads == 8


def test_a_guessed_number_of_heads_is_told_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "original", dialect="original")
    (tmp_path / "original" / "config.json").unlink()
    (file,) = (tmp_path / "original").glob("*.pth")
    artifact = lx.export("onnx", file, tmp_path / "out", parity=False)
    told = f"{file}: 1 attention head, guessed from hidden size / 64; num_attention_heads sets it"
    assert told in caplog.messages
    assert artifact.manifest.checkpoint["guessed_attention_heads"] == 1
    assert inspect_checkpoint(file)["guessed_attention_heads"] == 1
    caplog.clear()
    given = lx.export("onnx", file, tmp_path / "given", parity=False, num_attention_heads=4)
    assert (
        not any("guessed from" in message for message in caplog.messages)
        and "guessed_attention_heads" not in given.manifest.checkpoint
    )
    assert inspect_checkpoint(file, num_attention_heads=4)["guessed_attention_heads"] is None


def test_a_guess_stays_a_guess_wherever_it_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(lively_state(TINY, "model"), tmp_path / "plain.pth")
    convert_checkpoint(tmp_path / "plain.pth", tmp_path / "converted", dialect="hf")
    assert all(message.startswith(str(tmp_path / "plain.pth")) for message in caplog.messages)
    load_checkpoint(tmp_path / "plain.pth").save_pretrained(tmp_path / "saved", dialect="original")
    for name in ("converted", "saved"):
        caplog.clear()
        artifact = lx.export("onnx", tmp_path / name, tmp_path / f"{name}-onnx", parity=False)
        told = f"{tmp_path / name}: 1 attention head, guessed from hidden size / 64 when its config.json was written; "
        assert f"{told}num_attention_heads sets it" in caplog.messages
        assert artifact.manifest.checkpoint["guessed_attention_heads"] == 1
    caplog.clear()
    convert_checkpoint(tmp_path / "converted", tmp_path / "given", dialect="hf", num_attention_heads=4)
    given = read_checkpoint(tmp_path / "given")
    assert not caplog.messages and not given.guessed_heads and given.config.num_attention_heads == 4


def test_a_config_without_a_number_of_heads_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wide = TINY.replace(hidden_size=24, intermediate_size=24, num_attention_heads=4)
    lx.save_checkpoint(lively_model("model", wide), tmp_path / "in")
    config = tmp_path / "in" / "config.json"
    config.write_text(config.read_text().replace('  "num_attention_heads": 4,\n', ""))
    assert read_checkpoint(tmp_path / "in").config.num_attention_heads == 12
    assert caplog.messages == [
        f"{tmp_path / 'in'}: 12 attention heads, taken as transformers does, because its config.json has no "
        "num_attention_heads; num_attention_heads sets it"
    ]
