"""Checks a signature that a user gives for one of our models: what it asks for, the model must be able to give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lxmert_export.errors import ConversionError, as_given
from lxmert_export.exporting.model_to_export import ModelToExport
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.option_names import option
from lxmert_export.spec.signature import DYNAMIC_AXES, IMAGES, Signature, TensorSpec, task_signature

# The axes by which sample inputs are drawn. Those of objects have one more between them for pairs of pictures.
WORDS, OBJECTS = ("batch", "text"), ("batch", "objects")
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def check_signature(signature: Signature, model: ModelToExport, options: ExportOptions) -> None:
    """``ConversionError``: it is no sound signature, or names what the model lacks, or sizes that are not the model's.

    Of a user's own module nothing is known before it runs (``signature_by_running``).
    """
    if fault := next(_faults(signature, model.config.visual_pos_dim), None):
        raise ConversionError(f"signature: {fault}")
    if options.attention == "operator" and any("attentions." in spec.name for spec in signature.outputs):
        raise ConversionError(
            f"{option('attention', 'operator')}: gives no attention probabilities, which the signature names; take them out of "
            f"it, or choose {option('attention', 'decomposed')}"
        )
    if model.task is None:
        return
    has_object_heads = model.task == "pretraining" and bool(model.config.visual_losses)
    known = task_signature(model.config, model.task, hidden_states=True, attentions=True, object_heads=has_object_heads)
    _compare("input", signature.inputs, known.inputs, model.name)
    _compare("output", signature.outputs, known.outputs, model.name)


def _faults(signature: object, box_width: int) -> Iterator[str]:
    """Says in words what is wrong with a signature, whatever the model is."""
    if not isinstance(signature, Signature):
        yield f"it is {as_given(signature)}; give an lx.Signature"
        return
    task = signature.task
    if not isinstance(task, str) or not task.strip() or not task.isprintable() or {"/", "\\"} & set(task):
        yield f"its task is {as_given(task)}; give it a name of your choice, such as 'retrieval'"
    for side in ("inputs", "outputs"):
        specs = getattr(signature, side)
        if not isinstance(specs, tuple) or not all(isinstance(spec, TensorSpec) for spec in specs):
            yield f"its {side} must be a tuple of TensorSpec; one alone is written (TensorSpec(…),)"
            return
        if not specs:
            yield f"it has no {side}; name at least one"
    names = Counter(spec.name for spec in signature)
    if twice := [str(name) for name, number in names.items() if number > 1]:
        yield f"{', '.join(twice)} is there twice; each input and output needs a name of its own"
    for side, axes in (("input", DYNAMIC_AXES), ("output", (*DYNAMIC_AXES, IMAGES))):
        for spec in getattr(signature, f"{side}s"):
            yield from (f"{side} {spec.name} {fault}" for fault in _faults_of(spec, axes, is_output=side == "output"))
    yield from _undrawn(signature, box_width)


def _faults_of(spec: TensorSpec, known: Sequence[str], *, is_output: bool) -> Iterator[str]:
    if not isinstance(spec.name, str) or not spec.name:
        yield "has no name: give it the keyword or key by which the module knows it"
    if spec.dtype not in DTYPES:
        yield f"has the dtype {as_given(spec.dtype)}; choose from {', '.join(DTYPES)}"
    if not isinstance(spec.axes, tuple):
        yield f"has the axes {spec.axes!r}; give a tuple, such as ('batch', 7)"
    elif not spec.axes and is_output:
        yield "has no axes: a single number; give it one, such as (1,), and .reshape(1) or .expand in the module"
    elif wrong := [axis for axis in spec.axes if not _is_size(axis) and axis not in known]:
        yield f"has the axis {wrong[0]!r}; an axis is {', '.join(known)} (of any size) or a number of at least 1"


def _is_size(axis: object) -> bool:
    return type(axis) is int and axis >= 1


def _undrawn(signature: Signature, box_width: int) -> Iterator[str]:
    """What sample inputs cannot be drawn for: names and axes of LXMERT's inputs are what the gate draws by."""
    given = {spec.name: spec.axes for spec in signature.inputs}
    if missing := [name for name in ("input_ids", "visual_feats") if name not in given]:
        yield (
            f"it has no input {' and '.join(missing)}, by which words and objects are drawn for the gate; it has "
            f"{', '.join(given)}: name the module's inputs as LXMERT's are, visual_pos and masks too"
        )
        return
    words, features = given["input_ids"], given["visual_feats"]
    objects = features[:-1]
    if not _fits(words, WORDS):
        yield f"input input_ids has the axes {list(words)}; they are {list(WORDS)}"
    if not _fits((*objects[:1], *objects[-1:]), OBJECTS) or len(features) not in (3, 4) or not _is_size(features[-1]):
        yield f"input visual_feats has the axes {list(features)}; they are {[*OBJECTS, 'their width as a number']}"
    drawn = {"attention_mask": words, "token_type_ids": words, "visual_attention_mask": objects}
    drawn["visual_pos"] = (*objects, box_width)
    for name, axes in drawn.items():
        if name in given and given[name] != axes:
            yield f"input {name} has the axes {list(given[name])}; beside the other inputs they are {list(axes)}"


def _fits(axes: Sequence[str | int], names: Sequence[str]) -> bool:
    return len(axes) == len(names) and all(
        _is_size(axis) or axis == name for axis, name in zip(axes, names, strict=True)
    )


def _compare(what: str, given: Sequence[TensorSpec], known: Sequence[TensorSpec], name: str) -> None:
    specs = {spec.name: spec for spec in known}
    for spec in given:
        if spec.name not in specs:
            heads = [other for other in specs if "." not in other]
            raise ConversionError(f"signature: {name} has no {what} {spec.name}; it has {', '.join(heads)}")
        wanted = specs[spec.name]
        if len(spec.axes) != len(wanted.axes) or any(
            isinstance(own, int) and own != axis for own, axis in zip(wanted.axes, spec.axes, strict=True)
        ):
            raise ConversionError(
                f"signature: {what} {spec.name} has the axes {list(spec.axes)}; those of {name} are {list(wanted.axes)}"
            )
