"""One layer of each stack is traced: the file is that of tracing them all, and what is not as it was written is traced."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import converters.to_onnx
import lxmert_export as lx
from converters.onnx import repeated_layers
from converters.onnx.repeated_layers import LAYER, first_layers_alone
from converters.to_onnx import convert_to_onnx
from lxmert_export.model.lxmert import EncoderLayer, LxmertForQuestionAnswering, LxmertModel
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Signature, Task, TensorSpec, task_signature
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.traces import SharedTraces

DEEP = TINY.replace(l_layers=3, x_layers=2, r_layers=2)
LIMITS = InputLimits.of(DEEP)
STACKS = ["lxmert.language_layers", "lxmert.cross_modality_layers", "lxmert.vision_layers"]


FIXED = {"fixed": {"batch": 2, "text": 8, "objects": 8}}


@pytest.mark.parametrize(
    ("task", "options", "precision", "form"),
    [
        ("pretraining", {"hidden_states": True, "attentions": True}, "fp16", {}),
        ("nlvr2", FIXED, "bf16", {"opset": 23, "attention": "operator"}),
        ("question-answering", FIXED, "fp16", {"for_cuda": True}),
    ],
    ids=["every output", "operator", "CUDA"],
)
def test_the_file_is_the_same(
    task: Task,
    options: dict[str, Any],
    precision: str,
    form: dict[str, Any],
    shared_traces: SharedTraces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(converters.to_onnx, "trace", shared_traces.trace)
    copied: list[str] = []
    copy = repeated_layers._copy

    def counted(graph: Any, body: Any, layer: Any) -> None:
        copied.append(layer.op_type)
        copy(graph, body, layer)

    monkeypatch.setattr(repeated_layers, "_copy", counted)
    signature, model = task_signature(DEEP, task, **options), lively_model(task, DEEP)
    files = []
    for name in ("first layers", "all layers"):
        (tmp_path / name).mkdir()
        written = convert_to_onnx(model, signature, LIMITS, tmp_path / name, precision=precision, **form)
        files.append([path.read_bytes() for path in written])
        monkeypatch.setattr(converters.to_onnx, "first_layers_alone", nullcontext)
    assert files[0] == files[1]
    assert copied == [LAYER] * 4  # two of the language stack, one of each other; none where all are traced


def found(model: nn.Module) -> list[str]:
    """The stacks of a model as it is traced, in a wrapper."""
    return [stack.path.removeprefix("0.") for stack in repeated_layers._stacks(nn.Sequential(model))]


class Doubled(EncoderLayer):
    def forward(self, hidden: Tensor, bias: Tensor | None, want: bool) -> tuple[Tensor, Tensor | None]:
        states, attention = super().forward(hidden, bias, want)
        return 2 * states, attention


def hook(model: LxmertForQuestionAnswering) -> None:
    model.lxmert.language_layers[1].register_forward_hook(lambda layer, taken, given: given)


def hook_within(model: LxmertForQuestionAnswering) -> None:
    model.lxmert.language_layers[0].feed_forward.register_forward_pre_hook(lambda layer, taken: taken)  # type: ignore[union-attr]


def changed_forward(model: LxmertForQuestionAnswering) -> None:
    layer: Any = model.lxmert.language_layers[1]
    layer.forward = layer.forward


def another_class(model: LxmertForQuestionAnswering) -> None:
    model.lxmert.language_layers[2] = Doubled(DEEP)


def another_size(model: LxmertForQuestionAnswering) -> None:
    model.lxmert.language_layers[2] = EncoderLayer(DEEP.replace(intermediate_size=DEEP.intermediate_size * 2))


def another_norm(model: LxmertForQuestionAnswering) -> None:
    norm: Any = model.lxmert.language_layers[1]
    norm.feed_forward.layer_norm.eps *= 2


def shared_weight(model: LxmertForQuestionAnswering) -> None:
    layers: Any = model.lxmert.language_layers
    layers[1].self_attention.key.weight = layers[0].self_attention.query.weight


def other_names(model: LxmertForQuestionAnswering) -> None:
    layers: Any = model.lxmert.language_layers
    layers._modules = dict(zip("102", layers._modules.values(), strict=True))


# A model that is not as it is written is traced whole; equal layers are looked for in others.
CHANGES: list[tuple[Callable[[LxmertForQuestionAnswering], None], list[str]]] = [
    *((change, []) for change in (hook, hook_within, changed_forward, another_class)),
    *((change, STACKS[1:]) for change in (another_size, another_norm, shared_weight, other_names)),
]


@pytest.mark.quick
@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_only_equal_layers_of_a_model_as_it_is_written_are_taken(
    change: Callable[[LxmertForQuestionAnswering], None], expected: list[str]
) -> None:
    model = LxmertForQuestionAnswering(DEEP)
    assert found(model) == STACKS
    change(model)
    assert found(model) == expected


@pytest.mark.quick
def test_where_the_class_of_a_layer_was_changed_everything_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EncoderLayer, "forward", Doubled.forward)
    assert found(LxmertForQuestionAnswering(DEEP)) == []


@pytest.mark.quick
def test_with_a_global_hook_everything_is_traced() -> None:
    with nn.modules.module.register_module_forward_hook(lambda module, taken, given: given):
        assert found(LxmertForQuestionAnswering(DEEP)) == []


@pytest.mark.quick
def test_forward_is_as_it_was_afterwards() -> None:
    model = LxmertForQuestionAnswering(DEEP)
    with pytest.raises(ZeroDivisionError), first_layers_alone(nn.Sequential(model)):
        assert all("forward" in vars(layer) for layer in model.lxmert.vision_layers)
        raise ZeroDivisionError
    assert not any("forward" in vars(part) for part in model.modules())


class Twice(nn.Module):
    """A module of others: it calls the backbone's layers in its own way, with other arguments each time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = LxmertModel(DEEP)

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor) -> Tensor:
        words = self.body(input_ids, visual_feats, visual_pos).language_output
        layers = self.body.language_layers
        early, _ = layers[1](words[:, :1], bias=None, want=False)
        late, _ = layers[0](early + words, bias=None, want=False)
        return layers[1](late, bias=None, want=False)[0]


def test_a_module_of_others_is_traced_whole(tmp_path: Path) -> None:
    """The gate compares with the module itself."""
    torch.manual_seed(0)
    signature = Signature(
        "twice",
        inputs=(
            TensorSpec("input_ids", "int64", ("batch", "text")),
            TensorSpec("visual_feats", "float32", ("batch", "objects", DEEP.visual_feat_dim)),
            TensorSpec("visual_pos", "float32", ("batch", "objects", 4)),
        ),
        outputs=(TensorSpec("states", "float32", ("batch", "text", DEEP.hidden_size)),),
    )
    assert found(Twice()) == []
    artifact = lx.export("onnx", Twice().eval(), tmp_path / "out", signature=signature)
    assert artifact.report is not None and artifact.report.passed
