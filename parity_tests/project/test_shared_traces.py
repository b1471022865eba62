"""Tests that share a traced graph test what they would test with a graph of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import converters.to_onnx
import lxmert_export as lx
from converters.onnx.repeated_layers import architecture
from converters.to_onnx import convert_to_onnx
from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Precision, Task, task_signature
from parity_tests.faults import torch_faults
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.traces import SharedTraces


@pytest.mark.parametrize(("task", "precision"), [("nlvr2", "fp32"), ("pretraining", "bf16")])
def test_a_shared_trace_gives_the_same_file(
    task: Task, precision: Precision, shared_traces: SharedTraces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = task_signature(TINY, task)
    files = []
    for name, trace in (("shared", shared_traces), ("again", shared_traces), ("own", shared_traces.trace)):
        monkeypatch.setattr(converters.to_onnx, "trace", trace)
        (tmp_path / name).mkdir()
        model = lively_model(task, TINY, seed=3)
        paths = convert_to_onnx(model, signature, InputLimits.of(TINY), tmp_path / name, precision=precision)
        files.append([path.read_bytes() for path in paths])
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("dialect", ["hf", "original", "tf"])
def test_a_checkpoint_shares_its_trace_wherever_it_lies(dialect: Dialect, tmp_path: Path) -> None:
    """With whatever tokenizer beside it, and whatever else its config says."""
    model = lively_model("question-answering", TINY)
    described = {architecture(model)}
    for name, more in (("one", {}), ("other", {"made by": "somebody"})):
        model.config = model.lxmert.config = TINY.replace(extra=more)
        model.save_pretrained(tmp_path / name, dialect=dialect)
        (tmp_path / name / "vocab.txt").write_text(f"[PAD]\n[UNK]\n{name}\n")
        loaded = lx.load_checkpoint(tmp_path / name)
        assert loaded.config.extra.items() >= more.items() and loaded.companions.place == tmp_path / name
        described.add(architecture(loaded))
    assert len(described) == 1 and None not in described
    loaded.config = TINY.replace(task_qa=False)
    assert architecture(loaded) not in described


def give_it_a_hook(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, inputs, output: output)


CHANGES = {**torch_faults.FAULTS, "a hook": give_it_a_hook}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_module_never_gets_the_trace_of_the_sound_one(change: str) -> None:
    sound, faulty = lively_model("pretraining", TINY), lively_model("pretraining", TINY)
    apply: Callable[[nn.Module], None] = CHANGES[change]
    apply(faulty)
    assert (architecture(faulty) == architecture(sound)) == (change in torch_faults.WEIGHTS_ALONE)
