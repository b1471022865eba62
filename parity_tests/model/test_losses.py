"""The five pre-training losses, beside a plain float64 reading of their definition, and each under its own flag."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lxmert_export.errors import InputError
from lxmert_export.model.losses import classification_loss, visual_loss
from parity_tests.fixtures.random_models import SMALL, lively_inputs, lively_labels, lively_model
from parity_tests.fixtures.their_models import both

F64 = torch.float64
Floats = NDArray[np.float64]
LABELS = lively_labels(dtype=F64)


def cross_entropy(scores: Floats, label: int) -> float:
    """−log softmax(scores)[label]; 0 for an ignored label."""
    return 0.0 if label == -100 else math.log(sum(math.exp(s) for s in scores)) - scores[label]


def mean_cross_entropy(scores: Floats, labels: NDArray[np.int64]) -> float:
    rows = [
        cross_entropy(s, int(label)) for s, label in zip(scores.reshape(-1, scores.shape[-1]), labels.flat, strict=True)
    ]
    return sum(rows) / sum(int(label) != -100 for label in labels.flat)


def smooth_l1(scores: Floats, features: Floats) -> float:
    """Half the square below 1, the distance less a half above it; the mean over the features."""
    return float(np.mean([d * d / 2 if d < 1 else d - 0.5 for d in np.abs(scores - features)]))


def visual(per_object: Callable[[Floats, Any], float], scores: Floats, labels: Any, confidence: Floats) -> float:
    rows, objects = confidence.shape
    places = [(r, o) for r in range(rows) for o in range(objects)]
    return 6.67 * sum(per_object(scores[p], labels[p]) * float(confidence[p]) for p in places) / len(places)


def by_hand(output: Any) -> dict[str, float]:
    """The six terms from the model's own scores; keys are the flags that switch them off."""
    objects = {target: tuple(part.numpy() for part in given) for target, given in LABELS["obj_labels"].items()}
    scores = {name: value.numpy() for name, value in output.items() if name != "loss"}
    return {
        "task_mask_lm": mean_cross_entropy(scores["prediction_logits"], LABELS["labels"].numpy()),
        "task_matched": mean_cross_entropy(scores["cross_relationship_score"], LABELS["matched_label"].numpy()),
        "visual_obj_loss": visual(cross_entropy, scores["object_logits"], *objects["obj"]),
        "visual_attr_loss": visual(cross_entropy, scores["attribute_logits"], *objects["attr"]),
        "visual_feat_loss": visual(smooth_l1, scores["feature_regression"], *objects["feat"]),
        "task_qa": mean_cross_entropy(scores["question_answering_score"], LABELS["ans"].numpy()),
    }


def run(config: Any = SMALL, **labels: Any) -> Any:
    """The sound model under another config; its weights stay the same, whichever heads the config leaves out."""
    model = lively_model("pretraining").double()
    if config is not SMALL:
        reduced = lively_model("pretraining", config)
        reduced.load_state_dict({name: model.state_dict()[name] for name in reduced.state_dict()})
        model = reduced.double()
    with torch.no_grad():
        return model(**lively_inputs(dtype=F64), **labels, output_object_heads=True)


FLAGS = ("task_mask_lm", "task_matched", "visual_obj_loss", "visual_attr_loss", "visual_feat_loss", "task_qa")


@pytest.fixture(scope="module")
def whole() -> Any:
    return run(**LABELS)


@pytest.fixture(scope="module")
def terms(whole: Any) -> dict[str, float]:
    return by_hand(whole)


def test_total_is_the_sum_of_the_definition(whole: Any, terms: dict[str, float]) -> None:
    assert tuple(terms) == FLAGS
    assert whole.loss.dtype == F64 and whole.loss.shape == ()
    assert whole.loss.item() == pytest.approx(sum(terms.values()), rel=1e-14)
    features = (whole.feature_regression - LABELS["obj_labels"]["feat"][0]).abs()
    assert features.min() < 1 < features.max()  # both branches of smooth L1 are under test


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_switches_its_own_loss_off(flag: str, terms: dict[str, float]) -> None:
    assert terms[flag] > 0.01
    without = run(SMALL.replace(**{flag: False}), **LABELS).loss.item()
    assert without == pytest.approx(sum(terms.values()) - terms[flag], rel=1e-13)


def test_the_object_task_switches_all_three_visual_losses_off(terms: dict[str, float]) -> None:
    without = run(SMALL.replace(task_obj_predict=False), **LABELS).loss.item()
    assert without == pytest.approx(sum(terms[flag] for flag in terms if flag.startswith("task_")), rel=1e-13)


@pytest.mark.parametrize(
    ("argument", "flags"),
    [("labels", {"task_mask_lm"}), ("matched_label", {"task_matched"}), ("ans", {"task_qa"}),
     ("obj_labels", {"visual_obj_loss", "visual_attr_loss", "visual_feat_loss"})],
)  # fmt: skip
def test_labels_given_alone_give_their_own_loss(argument: str, flags: set[str], terms: dict[str, float]) -> None:
    alone = run(**{argument: LABELS[argument]}).loss.item()
    assert alone == pytest.approx(sum(terms[flag] for flag in flags), rel=1e-13)


def test_without_labels_there_is_no_loss() -> None:
    assert run().loss is None


def test_transformers_total_is_ours_added_up_in_float32(whole: Any, terms: dict[str, float]) -> None:
    """Where our totals differ in float64, by 5e-7: theirs begins as a float32 zero and is added to in place."""
    _, theirs = both("pretraining", F64)
    total = theirs(**lively_inputs(dtype=F64), **LABELS).loss
    words, match, *objects, answers = terms.values()
    added = np.float32(0)
    for term in (words, match, sum(objects), answers):
        added = np.float32(np.float64(added) + term)
    assert total.dtype == torch.float32
    assert total.item() == float(added) != whole.loss.item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_models_have_float32_losses(dtype: torch.dtype) -> None:
    model, labels = lively_model("pretraining").to(dtype), lively_labels(dtype=dtype)
    for given in (labels, {"labels": labels["labels"]}):
        assert model(**lively_inputs(dtype=dtype), **given).loss.dtype == torch.float32
    output = model(**lively_inputs(dtype=dtype), **labels, output_object_heads=True)
    widened = by_hand({name: value.detach().float() for name, value in output.items()})
    assert output.loss.item() == pytest.approx(sum(widened.values()), rel=1e-2 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("task", ["question-answering", "nlvr2"])
def test_fine_tuning_loss_is_the_mean_cross_entropy(task: Any) -> None:
    labels = torch.tensor([1, -100, 0])
    inputs = lively_inputs(dtype=F64)
    if task == "nlvr2":
        inputs |= {name: torch.stack([t, t.flip(1)], 1) for name, t in inputs.items() if name.startswith("visual")}
    with torch.no_grad():
        output = lively_model(task).double()(**inputs, labels=labels)
    assert output.loss.item() == pytest.approx(mean_cross_entropy(output[1].numpy(), labels.numpy()), rel=1e-14)


def test_ignored_labels_count_for_nothing_and_get_no_gradient() -> None:
    scores = torch.randn(2, 3, 5, dtype=F64, requires_grad=True)
    labels = torch.tensor([[1, -100, 4], [-100, -100, 0]])
    loss: Any = classification_loss(scores, labels)
    loss.backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad.abs().sum(-1) > 0, labels != -100)


def test_all_labels_ignored_is_not_a_number() -> None:
    assert torch.isnan(classification_loss(torch.zeros(2, 3), torch.tensor([-100, -100])))


def test_visual_mean_is_over_all_objects_the_unsure_and_ignored_included() -> None:
    scores = {"obj": torch.zeros(1, 4, 9, dtype=F64)}
    labels = torch.tensor([[0, 1, -100, 3]])
    confidence = torch.tensor([[1.0, 0.5, 1.0, 0.0]], dtype=F64)
    loss = visual_loss(scores, {"obj": (labels, confidence)}, SMALL.replace(visual_loss_normalizer=2.0))
    assert loss.item() == pytest.approx(2.0 * math.log(9) * 1.5 / 4, rel=1e-14)


def test_labels_of_a_target_that_is_off_are_not_looked_at(terms: dict[str, float]) -> None:
    features_only = SMALL.replace(visual_obj_loss=False, visual_attr_loss=False)
    wrong: dict[str, Any] = {"obj": None, "feat": LABELS["obj_labels"]["feat"]}
    assert run(features_only, obj_labels=wrong).loss.item() == pytest.approx(terms["visual_feat_loss"], rel=1e-13)


def test_missing_object_labels_are_all_named() -> None:
    given: dict[str, tuple[Tensor, Tensor]] = {"attr": LABELS["obj_labels"]["attr"]}
    with pytest.raises(InputError, match="lacks obj, feat"):
        run(obj_labels=given)
