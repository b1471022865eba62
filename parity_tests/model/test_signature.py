"""Signatures: what each task takes and gives, axes dynamic or fixed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lxmert_export.errors import ConfigError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import TASKS, Signature, Task, TensorSpec, task_signature
from parity_tests.fixtures.random_models import INPUT_NAMES, SMALL, lively_inputs, lively_model

pytestmark = pytest.mark.quick

OUTPUTS: dict[Task, list[str]] = {
    "model": ["language_output", "vision_output", "pooled_output"],
    "pretraining": ["prediction_logits", "cross_relationship_score", "question_answering_score"],
    "question-answering": ["question_answering_score"],
    "nlvr2": ["logits"],
}


def test_only_what_is_numbered_is_requested() -> None:
    """A module of a user's own may have an output whose name only ends as ours begin."""
    own = Signature("own", (), (TensorSpec("mean_hidden_states", "float32", ("batch", 4)),))  # type: ignore[arg-type]
    assert own.requests == {}
    ours = task_signature(SMALL, "pretraining", hidden_states=True, attentions=True, object_heads=True)
    assert ours.requests == {"output_hidden_states": True, "output_attentions": True, "output_object_heads": True}


@pytest.mark.parametrize("task", TASKS)
def test_names_and_dtypes(task: Task) -> None:
    signature = task_signature(SMALL, task)
    assert tuple(spec.name for spec in signature.inputs) == INPUT_NAMES
    assert [spec.dtype for spec in signature.inputs] == ["int64"] * 3 + ["float32"] * 3
    assert [spec.name for spec in signature.outputs] == OUTPUTS[task]
    assert signature.fixed_sizes == {}


def test_nlvr2_has_two_pictures_a_sentence() -> None:
    signature = task_signature(SMALL, "nlvr2", hidden_states=True, fixed={"batch": 3})
    assert signature.input("visual_feats").axes == (3, 2, "objects", 16)
    states = next(s for s in signature.outputs if s.name == "vision_hidden_states.0")
    assert states.axes == (6, "objects", 32)
    free = task_signature(SMALL, "nlvr2", hidden_states=True)
    assert free.outputs[1].shape({"batch": 4, "text": 5}) == (8, 5, 32)


def test_everything_on_request() -> None:
    names = [s.name for s in task_signature(
        SMALL, "pretraining", hidden_states=True, attentions=True, object_heads=True
    ).outputs]  # fmt: skip
    assert names[3:6] == ["object_logits", "attribute_logits", "feature_regression"]
    assert sum(name.startswith("language_hidden_states.") for name in names) == 4
    assert sum(name.startswith("vision_hidden_states.") for name in names) == 3
    assert [n for n in names if "attentions" in n] == [
        "language_attentions.0", "language_attentions.1", "vision_attentions.0",
        "cross_encoder_attentions.0", "cross_encoder_attentions.1",
    ]  # fmt: skip


def test_survives_the_manifest() -> None:
    signature = task_signature(SMALL, "nlvr2", hidden_states=True, fixed={"text": 20})
    assert Signature.from_dict(signature.to_dict()) == signature
    assert signature.fixed_sizes == {"text": 20}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"words": 3}}, "unknown axis 'words'"),
        ({"fixed": {"batch": 0}}, "batch must be at least 1"),
        ({"fixed": {"text": 33}}, "longer than the position table"),
        ({"object_heads": True}, "no object heads"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_signature(SMALL, "question-answering", **options)


@pytest.mark.parametrize("config", [SMALL, SMALL.replace(task_qa=False, visual_obj_loss=False, visual_pos_dim=6)])
@pytest.mark.parametrize("task", TASKS)
def test_outputs_are_what_the_model_returns(task: Task, config: LxmertConfig) -> None:
    """Names, shapes and dtypes of everything that can be asked for."""
    pretraining = {"output_object_heads": True} if task == "pretraining" else {}
    inputs = lively_inputs(config, pairs=task == "nlvr2")
    output = lively_model(task, config)(**inputs, output_hidden_states=True, output_attentions=True, **pretraining)
    returned: dict[str, torch.Tensor] = {}
    for name, value in output.items():
        returned |= {f"{name}.{n}": part for n, part in enumerate(value)} if isinstance(value, tuple) else {name: value}
    signature = task_signature(config, task, hidden_states=True, attentions=True, object_heads=bool(pretraining))
    sizes = {"batch": 3, "text": 7, "objects": 5}
    assert {spec.name: spec.shape(sizes) for spec in signature.outputs} == {
        n: tuple(t.shape) for n, t in returned.items()
    }
    assert {spec.name: spec.shape(sizes) for spec in signature.inputs} == {n: tuple(t.shape) for n, t in inputs.items()}
    assert {t.dtype for t in returned.values()} == {torch.float32}


def test_dtypes_and_fixed_axes_on_request() -> None:
    fixed = {"batch": 1, "text": 20, "objects": 36}
    signature = task_signature(SMALL, "model", float_dtype="float16", integer_dtype="int32", fixed=fixed)
    assert signature.fixed_sizes == fixed
    assert [spec.dtype for spec in signature] == ["int32"] * 3 + ["float16"] * 6
    assert {axis for spec in signature for axis in spec.axes if isinstance(axis, str)} == set()
    assert signature.outputs[1].axes == (1, 36, 32)


def test_object_heads_need_a_config_that_has_one() -> None:
    with pytest.raises(ConfigError, match="no object heads"):
        task_signature(SMALL.replace(task_obj_predict=False), "pretraining", object_heads=True)
