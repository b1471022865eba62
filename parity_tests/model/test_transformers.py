"""Live against transformers 5.23: forward, losses and gradients, both directions of the weights, float32 and float64."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from lxmert_export.model.lxmert import MODELS
from lxmert_export.spec.signature import Task
from parity_tests.fixtures.golden_comparison import LARGEST_SCORE, LEAST_FLOOR, rms, score
from parity_tests.fixtures.random_models import SMALL, lively_inputs, lively_labels
from parity_tests.fixtures.their_models import THEIRS, WeightsFrom, both, names, their_model

F64 = torch.float64

# Of the largest value compared. Orders of summation differ by a few units in the last place: 4e-15 was seen.
EXACT = 1e-13
EVERYTHING = {"output_hidden_states": True, "output_attentions": True}


def flat(value: Any) -> list[Tensor]:
    return [tensor for part in value for tensor in flat(part)] if isinstance(value, tuple) else [value]


def assert_equal(ours: Any, theirs: Any) -> None:
    """Both in float64: the same structure and, to its last digits, the same numbers."""
    assert type(ours) is type(theirs)
    if isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
        return
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == F64
    assert (ours - theirs).abs().max() <= EXACT * theirs.abs().max()


def run(model: Any, task: Task, dtype: torch.dtype, asked: Any) -> tuple[Any, dict[str, Tensor | None]]:
    """Everything that a model returns, and the gradient of each parameter by the model's own names."""
    output = model(**lively_inputs(dtype=dtype), **lively_labels(task, dtype=dtype), **asked)
    loss = torch.stack([part.square().mean() for part in output[:3]]).sum() if task == "model" else output.loss
    loss.backward()
    return output, {name: parameter.grad for name, parameter in model.named_parameters()}


# The losses of question answering read [CLS] alone: the last layer's vision side leads nowhere.
def leads_nowhere(name: str, task: Task) -> bool:
    last = f"lxmert.cross_modality_layers.{SMALL.x_layers - 1}.vision_"
    return task == "question-answering" and name.startswith(last)


# Ours is fused unless the attentions are asked for; theirs is explicit in any case.
@pytest.mark.parametrize("asked", [{}, EVERYTHING], ids=["fused", "explicit"])
@pytest.mark.parametrize("weights", ["ours", "theirs"])
@pytest.mark.parametrize("task", THEIRS)
def test_float64_forward_losses_and_gradients(task: Task, weights: WeightsFrom, asked: dict[str, bool]) -> None:
    ours, theirs = both(task, F64, weights=weights)
    (got, our_gradients), (wanted, their_gradients) = (run(model, task, F64, asked) for model in (ours, theirs))
    assert list(got.keys()) == list(wanted.keys())
    for name in set(wanted.keys()) - {"loss"}:
        assert_equal(got[name], wanted[name])
    if task != "model":
        # transformers adds its five losses up in float32, whatever their dtype: five roundings of the sum
        assert got.loss.dtype == F64
        assert abs(got.loss - wanted.loss) <= 5 * 2.0**-24 * wanted.loss
    largest = max(float(g.abs().max()) for g in their_gradients.values() if g is not None)
    for name, gradient in our_gradients.items():
        other = their_gradients[names(task)[name]]
        assert (gradient is None) == (other is None) == leads_nowhere(name, task), name
        if gradient is not None:
            assert other is not None
            assert (gradient - other).abs().max() <= EXACT * largest, name
            # a bias common to all keys changes no softmax
            assert gradient.abs().max() > 1e-9 * largest or name.endswith("key.bias"), name


@pytest.mark.parametrize("asked", [{}, EVERYTHING], ids=["fused", "explicit"])
@pytest.mark.parametrize("weights", ["ours", "theirs"])
@pytest.mark.parametrize("task", THEIRS)
def test_float32_forward_losses_and_gradients(task: Task, weights: WeightsFrom, asked: dict[str, bool]) -> None:
    """Their float32 is as far from our float64 as our own float32 is: both differ by rounding and nothing else."""
    exact, exact_gradients = run(both(task, F64, weights=weights)[0], task, F64, asked)
    ours, theirs = both(task, torch.float32, weights=weights)
    rounded, our_gradients = run(ours, task, torch.float32, asked)
    found, their_gradients = run(theirs, task, torch.float32, asked)
    for one, other, ideal in zip(*(flat(o.to_tuple()) for o in (found, rounded, exact)), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert score(one, ideal, other) <= LARGEST_SCORE
    largest = max(rms(g) for g in exact_gradients.values() if g is not None)
    for name, gradient in exact_gradients.items():
        one, other = their_gradients[names(task)[name]], our_gradients[name]
        if gradient is not None:
            assert one is not None and other is not None
            floor = max(rms(other - gradient), LEAST_FLOOR * rms(gradient), LEAST_FLOOR * 1e-3 * largest)
            assert rms(one - gradient) <= LARGEST_SCORE * floor, name


@pytest.mark.parametrize("task", THEIRS)
def test_train_mode_drops_out_where_theirs_does(task: Task) -> None:
    """The same draws in the same order: the same places, shapes and probabilities of dropout."""
    config = SMALL.replace(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    found = []
    for model in both(task, config=config):
        torch.manual_seed(7)
        found.append(model.train()(**lively_inputs(dtype=F64), **EVERYTHING).to_tuple())
    assert_equal(*found)


@pytest.mark.parametrize("task", THEIRS)
def test_tuples_come_in_the_same_order(task: Task) -> None:
    ours, theirs = both(task)
    got, wanted = (model(**lively_inputs(dtype=F64), **EVERYTHING, return_dict=False) for model in (ours, theirs))
    assert_equal(got, wanted)
    with_labels = {**lively_inputs(dtype=F64), **lively_labels(task, dtype=F64)}
    got, wanted = (model(**with_labels, return_dict=False) for model in (ours, theirs))
    assert [part.shape for part in got] == [part.shape for part in wanted]


@pytest.mark.parametrize("task", THEIRS)
def test_integers_and_slices_count_alike(task: Task) -> None:
    ours, theirs = (model(**lively_inputs(dtype=F64), **EVERYTHING) for model in both(task))
    assert_equal(ours[0], theirs[0])
    for places in (slice(1, 3), slice(None), slice(-2, None), slice(None, None, 2)):
        assert_equal(ours[places], theirs[places])
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("task", THEIRS)
def test_arguments_have_the_same_names_and_order(task: Task) -> None:
    ours, theirs = (list(inspect.signature(model.forward).parameters) for model in (MODELS[task], THEIRS[task]))
    theirs.remove("kwargs")  # swallows any misspelled argument
    assert ours[: len(theirs)] == theirs
    assert ours[len(theirs) :] == (["output_object_heads"] if task == "pretraining" else [])


@pytest.mark.parametrize("task", THEIRS)
def test_inputs_embeds(task: Task) -> None:
    ours, theirs = both(task)
    inputs = lively_inputs(dtype=F64)
    ids = inputs.pop("input_ids")
    embedded = ours.get_input_embeddings()(ids)
    got, wanted = ours(**inputs, inputs_embeds=embedded), theirs(**inputs, inputs_embeds=embedded)
    assert_equal(got.to_tuple(), wanted.to_tuple())
    assert_equal(got.to_tuple(), ours(input_ids=ids, **inputs).to_tuple())


@pytest.mark.parametrize(
    "left_out",
    [("attention_mask",), ("visual_attention_mask",), ("token_type_ids",),
     ("attention_mask", "visual_attention_mask", "token_type_ids")],
)  # fmt: skip
def test_optional_inputs_left_out(left_out: tuple[str, ...]) -> None:
    ours, theirs = both("model")
    inputs = {name: tensor for name, tensor in lively_inputs(dtype=F64).items() if name not in left_out}
    assert_equal(ours(**inputs).to_tuple(), theirs(**inputs).to_tuple())


SWITCHES = ("task_matched", "task_mask_lm", "task_obj_predict", "task_qa",
            "visual_obj_loss", "visual_attr_loss", "visual_feat_loss")  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_does_as_theirs(switch: str) -> None:
    ours, theirs = both("pretraining", torch.float32, SMALL.replace(**{switch: False}))
    options = {**lively_inputs(dtype=torch.float32), **lively_labels(dtype=torch.float32)}
    torch.testing.assert_close(ours(**options).loss, theirs(**options).loss, rtol=1e-6, atol=0)


def test_a_label_whose_task_is_off_gives_a_loss_of_zero() -> None:
    ours, theirs = both("pretraining", torch.float32, SMALL.replace(task_matched=False))
    for model in (ours, theirs):
        loss = model(**lively_inputs(dtype=torch.float32), matched_label=torch.tensor([0, 1, 0])).loss
        assert loss.shape == () and loss == 0


def test_resized_answers_and_words_agree() -> None:
    ours, theirs = both("pretraining", torch.float32)
    for model in (ours, theirs):
        assert model.resize_num_qa_labels(4).out_features == 4
        assert model.get_qa_logit_layer().out_features == 4
        model.resize_token_embeddings(140)
        model.double()  # not before: their new answer layer is always float32
    inputs = lively_inputs(dtype=F64)
    inputs["input_ids"] = inputs["input_ids"].clamp(max=139)
    assert_equal(ours(**inputs).to_tuple(), theirs(**inputs).to_tuple())


@pytest.mark.parametrize("task", THEIRS)
def test_initial_weights_are_drawn_alike(task: Task) -> None:
    """Per parameter: the same mean and spread, the same constants."""
    config = SMALL.replace(hidden_size=64, intermediate_size=256)
    torch.manual_seed(0)
    ours, theirs = dict(MODELS[task](config).named_parameters()), dict(their_model(task, config).named_parameters())
    for name, parameter in ours.items():
        other = theirs[names(task, config)[name]]
        if parameter.dim() == 1:
            assert torch.equal(parameter, other), name
        else:
            assert parameter.std().item() == pytest.approx(other.std().item(), rel=0.5), name
            assert (parameter[0] == 0).all() == (other[0] == 0).all(), name


def test_padding_rows_learn_nothing_as_theirs() -> None:
    for model in both("model"):
        inputs = {**lively_inputs(dtype=F64), "input_ids": torch.zeros(3, 7, dtype=torch.long)}
        model(**inputs).pooled_output.sum().backward()
        tables = [p.grad for p in model.embeddings.parameters() if p.dim() == 2]
        assert len(tables) == 3
        assert [bool((gradient[0] == 0).all()) for gradient in tables] == [True] * 3
        assert tables[0].abs().sum() == 0 and tables[1].abs().sum() > 0
