"""The losses of the Keras models are PyTorch's in float64: each alone, all together, under every flag, with ignored labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from converters.tensorflow_model import model as keras_model
from converters.tensorflow_model.losses import classification_loss, visual_loss
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from parity_tests.fixtures.keras_models import as_numpy, twin_of
from parity_tests.fixtures.random_models import TINY, inputs_for, lively_labels, lively_model

EXACT = 1e-12  # sums in another order; measured: 4e-16
LABELS = lively_labels(dtype=torch.float64)
FLAGS = ("task_mask_lm", "task_matched", "task_obj_predict", "task_qa",
         "visual_obj_loss", "visual_attr_loss", "visual_feat_loss")  # fmt: skip
IGNORED = {
    "labels": torch.full((3, 7), -100),
    "matched_label": torch.full((3,), -100),
    "ans": torch.full((3,), -100),
}


def double(config: LxmertConfig = TINY, task: Task = "pretraining") -> Any:
    return lively_model(task, config).double()


@cache
def shared(task: Task = "pretraining") -> PreTrainedTFLxmert:
    """The twin of ``double(task=task)``, which no test changes."""
    return twin_of(double(task=task))


def pytorchs(model: Any, **labels: Any) -> float:
    with torch.no_grad():
        return float(model(**inputs_for(model.task, torch.float64), **labels).loss)


def kerass(twin: PreTrainedTFLxmert, **labels: Any) -> float:
    loss = twin(**as_numpy(inputs_for(twin.task, torch.float64)), **as_numpy(labels)).loss
    assert loss.dtype == tf.float64 and loss.shape == ()
    return float(loss)


def assert_same(model: Any, **labels: Any) -> None:
    twin = shared(model.task) if model.config == TINY else twin_of(model)
    assert kerass(twin, **labels) == pytest.approx(pytorchs(model, **labels), rel=EXACT, nan_ok=True)


@pytest.mark.parametrize("names", [(name,) for name in LABELS] + [("labels", "ans"), tuple(LABELS)], ids="+".join)
def test_the_labels_that_are_given_count(names: tuple[str, ...]) -> None:
    assert_same(double(), **{name: LABELS[name] for name in names})


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_switches_its_own_loss_off(flag: str) -> None:
    model = double(TINY.replace(**{flag: False}))
    assert_same(model, **LABELS)
    assert pytorchs(model, **LABELS) < pytorchs(double(), **LABELS)


def test_every_visual_loss_may_be_off() -> None:
    model = double(TINY.replace(visual_obj_loss=False, visual_attr_loss=False, visual_feat_loss=False))
    assert_same(model, **LABELS)
    assert_same(model, obj_labels={})


@pytest.mark.parametrize("confidence", [0.0, 1.0], ids=["unsure", "sure"])
def test_confidence_is_each_objects_own(confidence: float) -> None:
    objects = {
        name: (given, torch.full((3, 5), confidence).double()) for name, (given, _) in LABELS["obj_labels"].items()
    }
    assert_same(double(), obj_labels=objects)
    assert_same(double(TINY.replace(visual_loss_normalizer=1 / 0.15)), **LABELS)


@pytest.mark.parametrize("name", IGNORED)
def test_all_ignored_is_not_a_number(name: str) -> None:
    given = {name: IGNORED[name]}
    assert np.isnan(pytorchs(double(), **given))
    assert np.isnan(kerass(shared(), **given))


def test_all_objects_ignored_is_zero() -> None:
    """Their mean is over all objects, the ignored ones among them."""
    off = double(TINY.replace(visual_feat_loss=False))
    confidence = torch.ones(3, 5).double()
    ignored = dict.fromkeys(("obj", "attr"), (torch.full((3, 5), -100), confidence))
    assert kerass(twin_of(off), obj_labels=ignored) == pytorchs(off, obj_labels=ignored) == 0


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("task_mask_lm", "labels"),
        ("task_matched", "matched_label"),
        ("task_obj_predict", "obj_labels"),
        ("task_qa", "ans"),
    ],
)
def test_a_label_for_a_task_that_is_off_gives_zero(flag: str, name: str) -> None:
    model = double(TINY.replace(**{flag: False}))
    assert kerass(twin_of(model), **{name: LABELS[name]}) == pytorchs(model, **{name: LABELS[name]}) == 0


def test_without_labels_there_is_no_loss() -> None:
    output = shared()(as_numpy(inputs_for("pretraining")))
    assert output.loss is None and "loss" not in output


def test_missing_object_labels_are_all_named() -> None:
    with pytest.raises(InputError, match=r"^obj_labels lacks obj, feat: give \(labels, confidence\)[^\n]*$"):
        kerass(shared(), obj_labels={"attr": LABELS["obj_labels"]["attr"]})


def test_labels_of_a_target_that_is_off_are_not_looked_at() -> None:
    features_only = double(TINY.replace(visual_obj_loss=False, visual_attr_loss=False))
    assert_same(features_only, obj_labels={"feat": LABELS["obj_labels"]["feat"]})


def changed(name: str, change: Any) -> dict[str, Any]:
    """All labels, one of them another; ``obj`` and ``attr`` are those of the objects."""
    labels = as_numpy(LABELS)
    if name in labels:
        return {**labels, name: change(labels[name])}
    classes, confidence = labels["obj_labels"][name]
    return {**labels, "obj_labels": {**labels["obj_labels"], name: (change(classes), confidence)}}


CLASSES = {
    "labels": TINY.vocab_size, "matched_label": 2, "ans": TINY.num_qa_labels,
    "obj": TINY.num_object_labels, "attr": TINY.num_attr_labels,
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_labels_that_no_class_has_are_refused(name: str) -> None:
    twin = shared()
    told = rf"obj_labels\['{name}'\]" if name in ("obj", "attr") else name
    for value in (-1, CLASSES[name], -101):

        def one_of_them(labels: Any, value: int = value) -> Any:
            return np.where(np.arange(labels.size).reshape(labels.shape) == labels.size - 1, value, labels)

        said = rf"^{told} holds {value}; it must be at least 0 and below {CLASSES[name]}, or -100, which is ignored$"
        with pytest.raises(InputError, match=said):
            twin(**as_numpy(inputs_for("pretraining", torch.float64)), **changed(name, one_of_them))


@pytest.mark.parametrize("name", CLASSES)
def test_labels_of_another_shape_or_kind_are_refused(name: str) -> None:
    twin, given = shared(), as_numpy(inputs_for("pretraining", torch.float64))
    with pytest.raises(InputError, match=r"has shape \[3, (\d, )?1\]; expected \[3(, \d)?\]$"):
        twin(**given, **changed(name, lambda labels: labels[..., None]))
    with pytest.raises(InputError, match="must hold integers, not float64$"):
        twin(**given, **changed(name, lambda labels: labels.astype(np.float64)))
    with pytest.raises(InputError, match=r"expected \[3(, \d)?\]$"):
        tf.function(twin)(**given, **changed(name, lambda labels: labels[..., None]))


@pytest.mark.parametrize("task", ["question-answering", "nlvr2"])
def test_fine_tuning_labels_are_looked_at(task: Task) -> None:
    twin, given = shared(task), as_numpy(inputs_for(task, torch.float64))
    labels = as_numpy(lively_labels(task)["labels"])
    with pytest.raises(InputError, match=r"^labels has shape \[3, 1\]; expected \[3\]$"):
        twin(**given, labels=labels[:, None])
    with pytest.raises(InputError, match="^labels holds -1; "):
        twin(**given, labels=np.full_like(labels, -1))


def test_features_of_another_shape_are_refused() -> None:
    twin, given = shared(), as_numpy(inputs_for("pretraining", torch.float64))
    objects = as_numpy(LABELS)["obj_labels"]
    features, confidence = objects["feat"]
    said = r"^obj_labels\['feat'\] has shape \[3, 5, 1\]; expected \[3, 5, 16\]$"
    with pytest.raises(InputError, match=said):
        twin(**given, obj_labels={**objects, "feat": (features[..., :1], confidence)})


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_labels_of_few_bits(dtype: str) -> None:
    labels = lively_labels("question-answering")["labels"]
    model = double(task="question-answering")
    found = kerass(shared("question-answering"), labels=labels.to(getattr(torch, dtype)))
    assert found == pytest.approx(pytorchs(model, labels=labels), rel=EXACT)


def test_lists_are_tensors() -> None:
    twin = twin_of(lively_model("pretraining", TINY), "float32")
    given, labels = as_numpy(inputs_for("pretraining")), as_numpy(lively_labels())
    lists = {name: array.tolist() for name, array in given.items()}
    objects = {name: [part.tolist() for part in pair] for name, pair in labels["obj_labels"].items()}
    listed = {**{name: labels[name].tolist() for name in IGNORED}, "obj_labels": objects}
    wanted = twin(**given, **labels)
    found = twin({**lists, **listed})
    assert float(found.loss) == float(wanted.loss)
    np.testing.assert_array_equal(found.prediction_logits, wanted.prediction_logits)
    with pytest.raises(InputError, match=r"^ans is a list that cannot become a tensor: [^\n]+$"):
        twin(**given, ans=[[1], [2, 3], 4])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("task", ["question-answering", "nlvr2"])
def test_fine_tuning_losses(task: Task, dtype: str) -> None:
    model, labels = double(task=task), lively_labels(task)["labels"]
    assert -100 in labels
    found = kerass(shared(task), labels=labels.to(getattr(torch, dtype)))
    assert found == pytest.approx(pytorchs(model, labels=labels), rel=EXACT)


def test_labels_of_32_bits() -> None:
    narrow: dict[str, Any] = {name: LABELS[name].int() for name in IGNORED}
    narrow["obj_labels"] = {
        target: (given if target == "feat" else given.int(), confidence.float())
        for target, (given, confidence) in LABELS["obj_labels"].items()
    }
    # confidences were rounded to float32
    assert kerass(shared(), **narrow) == pytest.approx(pytorchs(double(), **LABELS), rel=1e-7)


def test_losses_of_half_precision_models_are_float32() -> None:
    twin = twin_of(lively_model("pretraining", TINY), "float16")
    labels = as_numpy(lively_labels(dtype=torch.float16))
    for given in (labels, {"labels": labels["labels"]}, {"obj_labels": labels["obj_labels"]}):
        loss = twin(**as_numpy(inputs_for("pretraining", torch.float16)), **given).loss
        assert loss.dtype == tf.float32
    switched_off = twin_of(lively_model("pretraining", TINY.replace(task_qa=False)), "float16")
    assert (
        switched_off(**as_numpy(inputs_for("pretraining", torch.float16)), ans=labels["ans"]).loss.dtype == tf.float32
    )


def tfs_mean_confidence(
    scores: Mapping[str, Any], obj_labels: Mapping[str, tuple[Any, Any]], config: LxmertConfig
) -> Any:
    """As transformers' TFLxmert: the mean loss by the mean confidence."""
    sure = {target: (labels, tf.ones_like(confidence)) for target, (labels, confidence) in obj_labels.items()}
    means = [tf.reduce_mean(tf.cast(confidence, tf.float64)) for _, confidence in obj_labels.values()]
    terms = [visual_loss({target: scores[target]}, sure, config) for target in scores]
    return tf.add_n([term * mean for term, mean in zip(terms, means, strict=True)])


def ignored_ones_in_the_mean(logits: Any, labels: Any) -> Any:
    kept = tf.reduce_mean(tf.cast(tf.not_equal(labels, -100), tf.float64))
    return classification_loss(logits, labels) * kept


@pytest.mark.parametrize(
    ("function", "fault"),
    [("visual_loss", tfs_mean_confidence), ("classification_loss", ignored_ones_in_the_mean)],
    ids=["mean-confidence", "ignored-in-mean"],
)  # fmt: skip
def test_a_fault_in_a_loss_is_seen(function: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_model, function, fault)
    assert kerass(shared(), **LABELS) != pytest.approx(pytorchs(double(), **LABELS), rel=1e-3)
