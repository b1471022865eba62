"""Live against transformers 5.23: forward, losses and gradients, both directions of the weights, float32 and float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lxmert_export.config import LxmertConfig
from lxmert_export.model import MODELS
from lxmert_export.pretrained import PreTrainedLxmert
from lxmert_export.signature import Task
from lxmert_export.weight_names import BACKBONE, weight_names
from parity_tests.random_models import SMALL, lively_inputs, lively_model

THEIRS: dict[Task, Any] = {
    "model": transformers.LxmertModel,
    "pretraining": transformers.LxmertForPreTraining,
    "question-answering": transformers.LxmertForQuestionAnswering,
}
# Two orders of summation differ by a few units in the last place of the largest intermediate: 1e-15 and 1e-6 were seen.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def their_model(task: Task, config: LxmertConfig) -> Any:
    values = {k: v for k, v in config.to_dict().items() if k not in ("num_hidden_layers", "layer_norm_eps", "model_type")}
    return THEIRS[task](transformers.LxmertConfig(**values)).eval()


def both(task: Task, dtype: torch.dtype, config: LxmertConfig = SMALL) -> tuple[PreTrainedLxmert, Any]:
    """Our model with lively weights, and theirs with the same."""
    ours, theirs = lively_model(task, config), their_model(task, config)
    prefix = BACKBONE if task == "model" else ""
    state = ours.state_dict()
    renamed = {r.upstream.removeprefix(prefix): state[r.ours.removeprefix(prefix)] for r in weight_names(config, task)}
    theirs.load_state_dict(renamed, strict=True)
    return ours.to(dtype), theirs.to(dtype)


def inputs_of(dtype: torch.dtype) -> dict[str, Tensor]:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in lively_inputs().items()}


def labels_of(task: Task, dtype: torch.dtype, config: LxmertConfig = SMALL) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    if task == "question-answering":
        return {"labels": draw(config.num_qa_labels, 3)}
    if task == "model":
        return {}
    words = draw(config.vocab_size, 3, 7)
    words[:, ::2] = -100
    confidence = torch.rand(3, 5, generator=generator).to(dtype)
    features = torch.randn(3, 5, config.visual_feat_dim, generator=generator).to(dtype)
    return {
        "labels": words,
        "matched_label": draw(2, 3),
        "ans": torch.tensor([1, -100, 4]),
        "obj_labels": {
            "obj": (draw(config.num_object_labels, 3, 5), confidence),
            "attr": (draw(config.num_attr_labels, 3, 5), confidence.flip(0)),
            "feat": (features, confidence),
        },
    }


def assert_same(ours: Any, theirs: Any, dtype: torch.dtype) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other, dtype)
        return
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("task", THEIRS)
def test_forward_losses_and_gradients(task: Task, dtype: torch.dtype) -> None:
    ours, theirs = both(task, dtype)
    options = {**inputs_of(dtype), **labels_of(task, dtype), "output_hidden_states": True, "output_attentions": True}
    got, wanted = ours(**options), theirs(**options)
    assert list(got.keys()) == list(wanted.keys())
    for name in wanted:
        if name == "loss":  # transformers adds its losses up in float32, whatever the model's dtype
            assert_same(got.loss.float(), wanted.loss.float(), torch.float32)
        else:
            assert_same(got[name], wanted[name], dtype)
    (got.loss if "loss" in got else got.pooled_output.square().sum()).backward()
    (wanted.loss if "loss" in wanted else wanted.pooled_output.square().sum()).backward()
    assert_same_gradients(ours, theirs, task, dtype)


def assert_same_gradients(ours: PreTrainedLxmert, theirs: Any, task: Task, dtype: torch.dtype) -> None:
    prefix = BACKBONE if task == "model" else ""
    mine, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    compared = 0
    for row in weight_names(SMALL, task):
        name, upstream = row.ours.removeprefix(prefix), row.upstream.removeprefix(prefix)
        if name not in mine:  # the tied decoder is the word embedding
            continue
        one, other = mine[name].grad, others[upstream].grad
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype], msg=name)
            compared += int(one.abs().sum() > 0)
    assert compared > 50


@pytest.mark.parametrize("task", THEIRS)
def test_tuples_come_in_the_same_order(task: Task) -> None:
    ours, theirs = both(task, torch.float64)
    options = {**inputs_of(torch.float64), "output_hidden_states": True, "output_attentions": True}
    got, wanted = ours(**options, return_dict=False), theirs(**options, return_dict=False)
    assert_same(got, wanted, torch.float64)
    as_output = ours(**options)
    assert_same(as_output[0], got[0], torch.float64)
    assert_same(as_output[1:3], got[1:3], torch.float64)


@pytest.mark.parametrize("task", THEIRS)
def test_their_weights_in_our_model(task: Task) -> None:
    theirs, ours = their_model(task, SMALL).double(), MODELS[task](SMALL).double().eval()
    prefix = BACKBONE if task == "model" else ""
    state = theirs.state_dict()
    ours.load_state_dict(
        {r.ours.removeprefix(prefix): state[r.upstream.removeprefix(prefix)] for r in weight_names(SMALL, task)}
    )
    inputs = inputs_of(torch.float64)
    assert_same(ours(**inputs).to_tuple(), theirs(**inputs).to_tuple(), torch.float64)


def test_inputs_embeds() -> None:
    ours, theirs = both("pretraining", torch.float64)
    inputs = inputs_of(torch.float64)
    ids = inputs.pop("input_ids")
    embedded = ours.get_input_embeddings()(ids)
    got, wanted = ours(**inputs, inputs_embeds=embedded), theirs(**inputs, inputs_embeds=embedded)
    assert_same(got.to_tuple(), wanted.to_tuple(), torch.float64)
    assert_same(got.to_tuple(), ours(input_ids=ids, **inputs).to_tuple(), torch.float64)


@pytest.mark.parametrize(
    "switch",
    ["task_matched", "task_mask_lm", "task_obj_predict", "task_qa", "visual_obj_loss", "visual_attr_loss",
     "visual_feat_loss"],
)  # fmt: skip
def test_each_loss_has_its_own_switch(switch: str) -> None:
    config = SMALL.replace(**{switch: False})
    ours, theirs = both("pretraining", torch.float32, config)
    options = {**inputs_of(torch.float32), **labels_of("pretraining", torch.float32)}
    everything = both("pretraining", torch.float32)[0](**options).loss
    assert_same(ours(**options).loss, theirs(**options).loss, torch.float32)
    assert ours(**options).loss < everything - 1e-3


def test_resized_answers_and_words_agree() -> None:
    ours, theirs = both("pretraining", torch.float32)
    for model in (ours, theirs):
        model.resize_num_qa_labels(4)
        model.resize_token_embeddings(140)
    inputs = inputs_of(torch.float32)
    inputs["input_ids"] = inputs["input_ids"].clamp(max=139)
    assert_same(ours(**inputs).to_tuple(), theirs(**inputs).to_tuple(), torch.float32)
