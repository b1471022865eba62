"""How the Keras models may be called, what they give back, and what they refuse; under configs of all kinds."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.errors import InputError
from lxmert_export.spec.signature import TASKS, Task
from parity_tests.fixtures.keras_models import Arrays, as_numpy, flat, twin_of
from parity_tests.fixtures.random_models import SMALL, TINY, inputs_for, lively_inputs, lively_labels, lively_model

# The order of the PyTorch models' arguments.
ORDER = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "visual_attention_mask", "token_type_ids")
EXACT = 1e-11  # float64, sums in another order
CONFIGS = {
    "boxes of six numbers": {"visual_pos_dim": 6},
    "untied": {"tie_word_embeddings": False},
    "no answers": {"task_qa": False},
    "no objects": {"task_obj_predict": False},
    "no object classes": {"visual_obj_loss": False},
    "no features": {"visual_feat_loss": False, "visual_attr_loss": False},
    "eps": {"layer_norm_eps": 1e-2},
    "one head": {"num_attention_heads": 1},
    "other depths": {"l_layers": 1, "x_layers": 3, "r_layers": 2},
    "other widths": {"intermediate_size": 40, "num_qa_labels": 3, "type_vocab_size": 3},
}  # fmt: skip


@cache
def twin(task: Task = "pretraining") -> PreTrainedTFLxmert:
    """The Keras model that all tests here call, and none changes."""
    return twin_of(lively_model(task, TINY))


def inputs(task: Task = "pretraining") -> dict[str, Any]:
    return dict(as_numpy(inputs_for(task, torch.float64)))


def same(one: Any, other: Any) -> bool:
    """To the bit, and the same names."""
    found, wanted = flat(one), flat(other)
    return list(found) == list(wanted) and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def assert_as_pytorch(twin: PreTrainedTFLxmert, model: Any, given: dict[str, torch.Tensor], **options: Any) -> Arrays:
    with torch.no_grad():
        wanted = flat(model(**given, **options))
    found = flat(twin(**as_numpy(given), **options))
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=EXACT, atol=EXACT, err_msg=name)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_every_way_to_call_is_the_same_call(task: Task) -> None:
    model, given = twin(task), inputs(task)
    by_keyword = model(**given)
    assert isinstance(by_keyword, model.output_class)
    assert same(model(given), by_keyword)
    assert same(model(*(given[name] for name in ORDER)), by_keyword)
    first, *rest = ORDER
    assert same(model(given[first], **{name: given[name] for name in rest}), by_keyword)
    some = {name: given.pop(name) for name in ORDER[:3]}
    assert same(model(some, **given), by_keyword)


@pytest.mark.parametrize(
    ("ids", "masks"), [("int32", "int32"), ("int64", "int64"), ("int32", "float32"), ("int64", "bool")]
)
def test_every_dtype_of_ids_and_masks_is_welcome(ids: str, masks: str) -> None:
    model, given = twin(), inputs()
    cast = {"input_ids": ids, "token_type_ids": ids, "attention_mask": masks, "visual_attention_mask": masks}
    arrays = {**given, **{name: given[name].astype(dtype) for name, dtype in cast.items()}}
    assert same(model(arrays), model(given))
    assert same(model({name: tf.constant(array) for name, array in arrays.items()}), model(given))


@pytest.mark.parametrize("left_out", [ORDER[3:4], ORDER[4:5], ORDER[5:], ORDER[3:]], ids="+".join)
@pytest.mark.parametrize("task", TASKS)
def test_masks_and_token_types_may_be_left_out(task: Task, left_out: tuple[str, ...]) -> None:
    given = {name: tensor for name, tensor in inputs_for(task, torch.float64).items() if name not in left_out}
    assert_as_pytorch(twin(task), lively_model(task, TINY).double(), given)


@pytest.mark.parametrize("task", TASKS)
def test_embeddings_take_the_place_of_ids(task: Task) -> None:
    model, given = lively_model(task, TINY).double(), inputs_for(task, torch.float64)
    embeds = model.get_input_embeddings()(given.pop("input_ids")).detach()
    found = assert_as_pytorch(twin(task), model, {**given, "inputs_embeds": embeds})
    by_ids = flat(twin(task)(inputs(task)))
    assert all(np.array_equal(found[name], by_ids[name]) for name in by_ids)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_configs_of_all_kinds(config: dict[str, Any]) -> None:
    changed = SMALL.replace(**config)
    model, given = lively_model("pretraining", changed).double(), lively_inputs(changed, dtype=torch.float64)
    assert_as_pytorch(twin_of(model), model, given, output_object_heads=True)


@pytest.mark.parametrize("how", ["config", "call"])
@pytest.mark.parametrize("option", ["output_attentions", "output_hidden_states"])
@pytest.mark.parametrize("task", ["model", "nlvr2"])
def test_attentions_and_hidden_states(task: Task, option: str, how: str) -> None:
    given = {**inputs(task), **({option: True} if how == "call" else {})}
    model, usual = twin(task), set(twin(task)(inputs(task)))
    if how == "config":
        model = twin_of(lively_model(task, TINY.replace(**{option: True})))
    more = set(model(given)) - usual
    sides = ("language", "vision")
    if option == "output_attentions":
        assert more == {f"{side}_attentions" for side in (*sides, "cross_encoder")}
    else:
        assert more == {f"{side}_hidden_states" for side in sides}
    assert set(model({**given, option: False})) == usual  # a call outweighs the config


@pytest.mark.parametrize("how", ["config", "call"])
def test_return_dict(how: str) -> None:
    model = twin_of(lively_model("question-answering", TINY.replace(return_dict=how != "config")))
    options = {} if how == "config" else {"return_dict": False}
    found = model(inputs(), **options)
    assert type(found) is tuple and len(found) == 1
    assert same(model(inputs(), return_dict=True), {"question_answering_score": found[0]})
    assert type(model({**inputs(), "return_dict": False})) is tuple


def test_outputs_read_as_pytorchs_do() -> None:
    output = twin()(inputs())
    assert output[0] is output.prediction_logits is output["prediction_logits"]
    assert "loss" not in output and output.loss is None


@pytest.mark.parametrize("task", TASKS)
def test_inside_tf_function(task: Task) -> None:
    """With axes of any size; output classes go in and out."""
    model, given = twin(task), inputs(task)
    free = {n: tf.TensorSpec([None] * min(a.ndim, 2) + list(a.shape[2:]), a.dtype) for n, a in given.items()}
    if task == "nlvr2":
        free |= {n: tf.TensorSpec([None, 2, None, *given[n].shape[3:]], given[n].dtype) for n in given if "visual" in n}
    function = tf.function(lambda arrays: model(arrays, output_hidden_states=True), input_signature=[free])
    for rows in (3, 1):
        some = {name: array[:rows] for name, array in given.items()}
        found, wanted = function(some), model(some, output_hidden_states=True)
        assert isinstance(found, model.output_class)
        for name, array in flat(wanted).items():
            np.testing.assert_allclose(flat(found)[name], array, rtol=EXACT, atol=EXACT)
    assert same(tf.nest.map_structure(tf.identity, wanted), wanted)
    assert isinstance(tf.function(model)(given), model.output_class)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"inputs_embeds": np.zeros((3, 7, 32))}, "give either input_ids or inputs_embeds, one of the two"),
    "neither": ({"input_ids": None}, "give either input_ids or inputs_embeds, one of the two"),
    "no features": ({"visual_feats": None}, "visual_feats and visual_pos are both needed"),
    "no boxes": ({"visual_pos": None}, "visual_feats and visual_pos are both needed"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("task", TASKS)
def test_what_is_missing_or_given_twice_is_one_line(task: Task, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}[^\n]*$") as told:
        twin(task)({**inputs(task), **change})
    assert "\n" not in str(told.value)


ILL_FITTING: dict[str, tuple[str, Any, str]] = {
    "id too large": ("input_ids", np.full((3, 7), SMALL.vocab_size), f"input_ids holds {SMALL.vocab_size}; it must be"),
    "negative id": ("input_ids", np.full((3, 7), -1), "input_ids holds -1; it must be"),
    "token type": ("token_type_ids", np.full((3, 7), 2), "token_type_ids holds 2; it must be at least 0 and below 2"),
    "ids that are no integers": ("input_ids", np.ones((3, 7), np.float32), "input_ids must hold integers, not float32"),
    "text too long": ("input_ids", np.ones((3, 99), np.int32), "the text has 99 words; the position table ends at"),
    "narrow features": (
        "visual_feats",
        np.zeros((3, 5, 2)),
        r"visual_feats has shape \[3, 5, 2\]; expected \[3, objects",
    ),
    "flat features": ("visual_feats", np.zeros((3, 5)), r"visual_feats has shape \[3, 5\]; expected \[3, objects"),
    "another batch": ("visual_pos", np.zeros((2, 5, 4)), r"visual_pos has shape \[2, 5, 4\]; expected \[3, 5, "),
    "long mask": ("attention_mask", np.ones((3, 8)), r"attention_mask has shape \[3, 8\]; expected \[3, 7\]"),
    "mask of 255": (
        "attention_mask",
        np.full((3, 7), 255),
        "attention_mask holds 255; a mask holds 1 for what is seen",
    ),
    "additive mask": ("visual_attention_mask", np.full((3, 5), -1e4), "visual_attention_mask holds -10000; a mask"),
    "mask of other objects": ("visual_attention_mask", np.ones((3, 4)), r"visual_attention_mask has shape \[3, 4\]"),
}


@pytest.mark.parametrize(("name", "value", "message"), ILL_FITTING.values(), ids=ILL_FITTING)
@pytest.mark.parametrize("task", ["model", "question-answering"])
def test_what_does_not_fit_is_one_line(task: Task, name: str, value: Any, message: str) -> None:
    model, given = twin(task), inputs(task)
    given["visual_feats"], given["visual_pos"] = given["visual_feats"][:, :5], given["visual_pos"][:, :5]
    given["visual_attention_mask"] = given["visual_attention_mask"][:, :5]
    if name == "input_ids" and value.shape != (3, 7):
        del given["attention_mask"], given["token_type_ids"]
    with pytest.raises(InputError, match=f"^{message}[^\n]*$"):
        model({**given, name: value})
    if "holds" not in message:  # ids are known outside of a graph alone
        with pytest.raises(InputError, match=message):  # within lines of TensorFlow's own
            tf.function(model)({**given, name: value})


def test_a_mask_of_one_row_serves_all_rows() -> None:
    model, given = twin(), inputs()
    masks = {name: given[name][:1] for name in ("attention_mask", "token_type_ids", "visual_attention_mask")}
    whole = {name: np.repeat(mask, 3, axis=0) for name, mask in masks.items()}
    assert same(model({**given, **masks}), model({**given, **whole}))


def test_other_misuse_is_told_in_one_line() -> None:
    model, given = twin(), inputs()
    with pytest.raises(InputError, match="^input_ids is both in the dictionary and a keyword$"):
        model(given, input_ids=given["input_ids"])
    with pytest.raises(InputError, match="^give inputs by keyword, .* not in a list or tuple$"):
        model([given[name] for name in ORDER])
    with pytest.raises(TypeError, match="masked_lm_labels"):
        model(given, masked_lm_labels=given["input_ids"])
    symbols = {name: keras.Input(array.shape[1:], dtype=array.dtype.name) for name, array in given.items()}
    with pytest.raises(InputError, match="^the functional API cannot hold this model's outputs"):
        model(symbols)


@keras.saving.register_keras_serializable("parity_tests")
class Scores(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """What the refusal advises: a layer around the model, which the functional API takes."""

    def __init__(self, model: PreTrainedTFLxmert) -> None:
        super().__init__(dtype="float64")
        self.model = model

    def call(self, given: dict[str, Any]) -> Any:
        return self.model(given).question_answering_score


def test_a_layer_around_the_model_goes_into_the_functional_api() -> None:
    model, given = twin_of(lively_model("question-answering", TINY)), inputs()
    symbols = {name: keras.Input(array.shape[1:], dtype=array.dtype.name, name=name) for name, array in given.items()}
    whole = keras.Model(symbols, keras.layers.Softmax(dtype="float64")(Scores(model)(symbols)))
    scores = model(given).question_answering_score
    np.testing.assert_allclose(whole(given), tf.nn.softmax(scores), rtol=EXACT)


def test_the_pytorch_models_have_the_same_arguments() -> None:
    for task in TASKS:
        theirs = inspect.signature(type(lively_model(task, TINY)).forward).parameters
        ours = inspect.signature(type(twin(task)).call).parameters
        added = ("training", "need_words", "need_vision")  # the last two: what a head reads of the backbone
        assert [name for name in ours if name not in added] == [name for name in theirs if name != "return_dict"]


class Calls:
    """Notes how many rows each feed-forward block of the last cross-modality layer computes."""

    def __init__(self, model: PreTrainedTFLxmert, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, int] = {}
        layer = model.backbone().cross_modality_layers[-1]
        for side in ("language", "vision"):
            block = getattr(layer, f"{side}_feed_forward")
            monkeypatch.setattr(block, "call", self._noting(side, block.call))

    def _noting(self, side: str, sound: Any) -> Any:
        def call(hidden: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            self.rows[side] = int(tf.size(hidden)) // hidden.shape[-1]
            return sound(hidden, training=training)

        return call


WORDS, OBJECTS = 3 * 7, 3 * 5  # of ``lively_inputs``
NEEDED: dict[str, tuple[Task, dict[str, Any], dict[str, int]]] = {
    "an answer": ("question-answering", {}, {"language": 3}),
    "an answer and its loss": ("question-answering", {"labels": np.array([1, 2, 0])}, {"language": 3}),
    "a pair of pictures": ("nlvr2", {}, {"language": 6}),
    "training": ("question-answering", {"training": True}, {"language": WORDS, "vision": OBJECTS}),
    "hidden states": ("question-answering", {"output_hidden_states": True}, {"language": WORDS, "vision": OBJECTS}),
    "attentions": ("question-answering", {"output_attentions": True}, {"language": WORDS, "vision": OBJECTS}),
    "words": ("pretraining", {}, {"language": WORDS}),
    "words and objects": ("pretraining", {"output_object_heads": True}, {"language": WORDS, "vision": OBJECTS}),
    "the loss of objects": (
        "pretraining", {"obj_labels": as_numpy(lively_labels())["obj_labels"]}, {"language": WORDS, "vision": OBJECTS},
    ),
    "the backbone": ("model", {}, {"language": WORDS, "vision": OBJECTS}),
}  # fmt: skip


@pytest.mark.parametrize(("task", "options", "wanted"), NEEDED.values(), ids=NEEDED)
@pytest.mark.parametrize("matrices", [True, False])
def test_rows_that_no_output_needs_are_not_computed(
    task: Task, options: dict[str, Any], wanted: dict[str, int], matrices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = twin(task)
    calls = Calls(model, monkeypatch)
    monkeypatch.setattr(model.backbone(), "matrices", matrices)
    found = model(**inputs(task), **options)
    assert calls.rows == wanted
    if not options.get("training"):
        whole = model(**inputs(task), **{**options, "output_hidden_states": True})
        for name, value in flat(found).items():
            np.testing.assert_allclose(value, flat(whole)[name], rtol=EXACT, atol=EXACT, err_msg=name)


def test_a_backbone_without_rows_gives_no_output_of_them() -> None:
    whole, pooled = (
        twin("model")(**inputs("model")),
        twin("model")(**inputs("model"), need_words=False, need_vision=False),
    )
    assert list(whole) == ["language_output", "vision_output", "pooled_output"] and list(pooled) == ["pooled_output"]
    np.testing.assert_allclose(pooled.pooled_output, whole.pooled_output, rtol=EXACT, atol=EXACT)
