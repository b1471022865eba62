"""Checks a signature that a user gives for one of our models: what it asks for, the model must be able to give."""

from __future__ import annotations

from collections.abc import Sequence

from lxmert_export.errors import ConversionError
from lxmert_export.exporting.model_to_export import ModelToExport
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.option_names import option
from lxmert_export.spec.signature import Signature, TensorSpec, task_signature


def check_signature(signature: Signature, model: ModelToExport, options: ExportOptions) -> None:
    """``ConversionError``: the signature names what the model lacks, or sizes that are not the model's. A user's own module
    passes: only it knows what it takes.
    """
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
