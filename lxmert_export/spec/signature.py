"""The names, dtypes and axes of each task's inputs and outputs. All targets read them from here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from lxmert_export.errors import ConfigError
from lxmert_export.files.limits import MOST_VALUES_A_CALL
from lxmert_export.option_names import option
from lxmert_export.spec.config import LxmertConfig

if TYPE_CHECKING:
    from typing_extensions import Self

Task = Literal["model", "pretraining", "question-answering", "nlvr2"]
TASKS: tuple[Task, ...] = get_args(Task)
Precision = Literal["fp32", "fp16", "bf16", "int8"]
# What a runtime may compute a file in: some round a float32 file. TF32 multiplies numbers of 10 bits behind the leading one.
ComputedPrecision = Literal["fp32", "fp16", "bf16", "int8", "tf32"]
# How an ONNX graph holds each attention: as basic nodes, or as one Attention operator.
Attention = Literal["decomposed", "operator"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
ATTENTION_OPSET = 23  # the first opset with an Attention operator

# The axes that are dynamic unless fixed. nlvr2 has two pictures for each sentence; its hidden states and attentions have an axis
# `images` of 2 x batch.
DYNAMIC_AXES = ("batch", "text", "objects")
IMAGES, IMAGES_PER_SENTENCE = "images", 2
# The inputs from which a runner reads the sizes of a call: [batch, text] and [batch, …, objects, features].
LEAST_RANKS = {"input_ids": 2, "visual_feats": 3}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, the name of its numpy dtype, and its axes.

    A dynamic axis is given by its name, a fixed axis by its size. Runners fill in an ``optional`` input that is left out.
    """

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    optional: bool = False

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers; all others (ids, counts, flags) are exact."""
        return "float" in self.dtype

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Returns the shape for given sizes of the dynamic axes (``batch``, ``text``, ``objects``)."""
        known = {**sizes, IMAGES: IMAGES_PER_SENTENCE * sizes.get("batch", 1)}
        return tuple(axis if isinstance(axis, int) else known[axis] for axis in self.axes)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a task, in the order in which every file lists them.

    ``task`` is one of LXMERT's four. For a module of your own it is a name of your choice, and ``own_module`` need not be set:
    ``export`` sets it, whatever the name is.
    """

    task: Task | str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    own_module: bool = False

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self.inputs + self.outputs)

    def in_float32(self) -> Self:
        """Returns the same signature with every floating-point dtype changed to float32."""

        def widened(spec: TensorSpec) -> TensorSpec:
            return replace(spec, dtype="float32") if spec.is_float else spec

        return replace(self, inputs=tuple(map(widened, self.inputs)), outputs=tuple(map(widened, self.outputs)))

    def of_any_batch(self) -> Self:
        """Returns the same signature with a dynamic batch axis of its inputs."""
        return replace(self, inputs=tuple(replace(spec, axes=("batch", *spec.axes[1:])) for spec in self.inputs))

    @property
    def lxmert_task(self) -> Task | None:
        """The task, if it is one of LXMERT's; None for a user's own module, of which only its signature is known."""
        return next((task for task in TASKS if task == self.task and not self.own_module), None)

    @property
    def fixed_sizes(self) -> dict[str, int]:
        """The axes among batch, text and objects that are fixed, with their sizes."""
        ids, features = self.input("input_ids"), self.input("visual_feats")
        places = {"batch": ids.axes[0], "text": ids.axes[1], "objects": features.axes[-2]}
        return {name: size for name, size in places.items() if isinstance(size, int)}

    @property
    def requests(self) -> dict[str, bool]:
        """The options with which a model must be called so that it returns all outputs."""
        names = [spec.name for spec in self.outputs]
        asked = {
            # With the dot, because a user's own module may have an output such as my_hidden_states.
            "output_hidden_states": any("_hidden_states." in name for name in names),
            "output_attentions": any("_attentions." in name for name in names),
            "output_object_heads": not OBJECT_HEADS.isdisjoint(names),
        }
        return {option: True for option, wanted in asked.items() if wanted}

    def input(self, name: str) -> TensorSpec:
        """Returns the spec of one input."""
        return next(spec for spec in self.inputs if spec.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the signature as the manifest holds it."""
        values = {
            "task": self.task,
            "inputs": [_spec_to_dict(spec) for spec in self.inputs],
            "outputs": [_spec_to_dict(spec) for spec in self.outputs],
        }
        return {**values, "own_module": True} if self.own_module else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what ``to_dict`` returned. ``ConfigError``: no inputs of this tool fit it. ``KeyError``, ``TypeError``: it is
        something else.
        """
        specs = {
            side: tuple(
                TensorSpec(spec["name"], spec["dtype"], tuple(spec["axes"]), bool(spec.get("optional", False)))
                for spec in values[side]
            )
            for side in ("inputs", "outputs")
        }
        signature = cls(values["task"], specs["inputs"], specs["outputs"], bool(values.get("own_module", False)))
        signature.check_fillable()
        return signature

    def check_fillable(self) -> None:
        """``ConfigError``: sizes of batch, text and objects do not give every input a shape, or a name is there twice."""
        for names in ([spec.name for spec in self.inputs], [spec.name for spec in self.outputs]):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ConfigError(f"signature: {twice[0]!r} is there twice")
        ranks = {spec.name: len(spec.axes) for spec in self.inputs}
        if short := [name for name, least in LEAST_RANKS.items() if ranks.get(name, 0) < least]:
            raise ConfigError(f"signature: has no input {short[0]} of at least {LEAST_RANKS[short[0]]} axes")
        for spec in self.inputs:
            values = math.prod(axis for axis in spec.axes if isinstance(axis, int))
            if values > MOST_VALUES_A_CALL:
                raise ConfigError(
                    f"signature: input {spec.name} has {values:,} values a call, more than {MOST_VALUES_A_CALL:,}"
                )
            known = (*DYNAMIC_AXES, IMAGES)
            if odd := [axis for axis in spec.axes if isinstance(axis, str) and axis not in known]:
                raise ConfigError(f"signature: input {spec.name} has an axis {odd[0]!r}; known are {', '.join(known)}")


def task_signature(
    config: LxmertConfig,
    task: Task,
    *,
    hidden_states: bool = False,
    attentions: bool = False,
    object_heads: bool = False,
    fixed: Mapping[str, int] | None = None,
    float_dtype: str = "float32",
    integer_dtype: str = "int64",
) -> Signature:
    """Returns the signature of a task, with the names that Hugging Face uses.

    ``fixed`` gives fixed sizes to some of the axes batch, text and objects. ``ConfigError``: an axis is unknown, a size is below
    1, the text is longer than the position table, or ``object_heads`` for a task or config that has none.
    """
    pairs = task == "nlvr2"
    visual: tuple[str | int, ...] = ("batch", IMAGES_PER_SENTENCE, "objects") if pairs else ("batch", "objects")
    inputs = (
        TensorSpec("input_ids", integer_dtype, ("batch", "text")),
        TensorSpec("attention_mask", integer_dtype, ("batch", "text"), optional=True),
        TensorSpec("token_type_ids", integer_dtype, ("batch", "text"), optional=True),
        TensorSpec("visual_feats", float_dtype, (*visual, config.visual_feat_dim)),
        TensorSpec("visual_pos", float_dtype, (*visual, config.visual_pos_dim)),
        TensorSpec("visual_attention_mask", float_dtype, visual, optional=True),
    )
    if object_heads and (task != "pretraining" or not config.visual_losses):
        raise ConfigError(
            f"task {task!r} of this checkpoint has no object heads to export; leave {option('object_heads')} out"
        )
    rows = "images" if pairs else "batch"
    outputs = [TensorSpec(name, float_dtype, axes) for name, axes in _head_outputs(config, task, object_heads)]
    if hidden_states:
        outputs += [TensorSpec(name, float_dtype, axes) for name, axes in _hidden_state_outputs(config, rows)]
    if attentions:
        outputs += [TensorSpec(name, float_dtype, axes) for name, axes in _attention_outputs(config, rows)]
    return _fix_axes(Signature(task, inputs, tuple(outputs)), dict(fixed or {}), config)


ANSWER_OUTPUT = "question_answering_score"
# Outputs whose last axis holds the scores of choices, such as answers. If there is a choice for each word or object, the value is
# the mask of those words or objects: the choice for a masked one has no meaning.
CHOICE_OUTPUTS: dict[str, str | None] = {
    ANSWER_OUTPUT: None,
    "prediction_logits": "attention_mask",
    "cross_relationship_score": None,
    "logits": None,
    "object_logits": "visual_attention_mask",
    "attribute_logits": "visual_attention_mask",
}
CROSS_ATTENTIONS = "cross_encoder_attentions"  # the outputs are called cross_encoder_attentions.N, N being the layer
_NamedAxes = Iterator[tuple[str, tuple[str | int, ...]]]
OBJECT_OUTPUTS = {"obj": "object_logits", "attr": "attribute_logits", "feat": "feature_regression"}
OBJECT_HEADS = frozenset(OBJECT_OUTPUTS.values())


def _head_outputs(config: LxmertConfig, task: Task, object_heads: bool) -> _NamedAxes:
    if task == "model":
        yield "language_output", ("batch", "text", config.hidden_size)
        yield "vision_output", ("batch", "objects", config.hidden_size)
        yield "pooled_output", ("batch", config.hidden_size)
    if task == "pretraining":
        yield "prediction_logits", ("batch", "text", config.vocab_size)
        yield "cross_relationship_score", ("batch", 2)
    if task == "question-answering" or (task == "pretraining" and config.task_qa):
        yield ANSWER_OUTPUT, ("batch", config.num_qa_labels)
    if object_heads:
        for target in config.visual_losses:
            yield OBJECT_OUTPUTS[target], ("batch", "objects", config.visual_target_size(target))
    if task == "nlvr2":
        yield "logits", ("batch", 2)


def _hidden_state_outputs(config: LxmertConfig, rows: str) -> _NamedAxes:
    for n in range(config.l_layers + config.x_layers):
        yield f"language_hidden_states.{n}", (rows, "text", config.hidden_size)
    for n in range(config.r_layers + config.x_layers):
        yield f"vision_hidden_states.{n}", (rows, "objects", config.hidden_size)


def _attention_outputs(config: LxmertConfig, rows: str) -> _NamedAxes:
    heads = config.num_attention_heads
    for n in range(config.l_layers):
        yield f"language_attentions.{n}", (rows, heads, "text", "text")
    for n in range(config.r_layers):
        yield f"vision_attentions.{n}", (rows, heads, "objects", "objects")
    for n in range(config.x_layers):
        yield f"{CROSS_ATTENTIONS}.{n}", (rows, heads, "text", "objects")


def _fix_axes(signature: Signature, fixed: dict[str, int], config: LxmertConfig) -> Signature:
    for axis, size in fixed.items():
        if axis not in DYNAMIC_AXES:
            raise ConfigError(f"unknown axis {axis!r}; the axes are {', '.join(DYNAMIC_AXES)}")
        if size < 1:
            raise ConfigError(f"{option(axis)} must be at least 1, not {size}")
    if fixed.get("text", 1) > config.max_position_embeddings:
        raise ConfigError(
            f"{option('text')} {fixed['text']} is longer than the position table: give at most {config.max_position_embeddings}"
        )
    sizes: dict[str, str | int] = {**fixed}
    if "batch" in fixed:
        sizes["images"] = IMAGES_PER_SENTENCE * fixed["batch"]

    def fix(spec: TensorSpec) -> TensorSpec:
        return replace(spec, axes=tuple(sizes.get(a, a) if isinstance(a, str) else a for a in spec.axes))

    return replace(signature, inputs=tuple(map(fix, signature.inputs)), outputs=tuple(map(fix, signature.outputs)))


def _spec_to_dict(spec: TensorSpec) -> dict[str, Any]:
    values: dict[str, Any] = {"name": spec.name, "dtype": spec.dtype, "axes": list(spec.axes)}
    return {**values, "optional": True} if spec.optional else values
