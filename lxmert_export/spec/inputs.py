"""Prepares inputs for a runner: fills in, casts, and checks them against the signature and the model's tables."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import InputError, InputWarning
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from typing_extensions import Self

Arrays = dict[str, NDArray[np.generic]]
MASK, BOXES = "attention_mask", "visual_pos"
# Detectors round: a corner may lie a little outside of the picture.
BOX_RANGE = (-0.01, 1.01)


@dataclass(frozen=True)
class InputLimits:
    """The sizes of a model's tables: ids below ``vocabulary``, token types below ``token_types``, at most ``positions`` words."""

    vocabulary: int
    token_types: int
    positions: int

    @classmethod
    def of(cls, config: LxmertConfig) -> Self:
        """Returns the limits of a config."""
        return cls(config.vocab_size, config.type_vocab_size, config.max_position_embeddings)


def prepare_inputs(
    inputs: Mapping[str, Any],
    signature: Signature,
    limits: InputLimits,
    *,
    allow_nonfinite: bool = False,
) -> Arrays:
    """Returns inputs as the signature has them, in its order and dtypes.

    ``inputs`` are arrays, nested lists or PyTorch tensors by name. Optional inputs that are left out, or None, are filled in:
    masks with ones, token types with zeros. Warns of boxes that are not shares of the picture's size. ``InputError``:

    - a name is unknown or missing, a value is no array, or a shape, a dtype or an id does not fit,
    - a mask of one of LXMERT's tasks holds other values than 0 and 1,
    - unless ``allow_nonfinite``, a number is NaN or infinite.
    """
    if not isinstance(inputs, Mapping):
        raise InputError(f"inputs are a dictionary of arrays by name, not {type(inputs).__name__}")
    given = {name: _as_array(value, name) for name, value in inputs.items() if value is not None}
    known = {spec.name for spec in signature.inputs}
    if unknown := sorted(set(given) - known):
        raise InputError(
            f"unknown input {', '.join(unknown)}; the inputs are {', '.join(s.name for s in signature.inputs)}"
        )
    if missing := [s.name for s in signature.inputs if s.name not in given and not s.optional]:
        raise InputError(f"missing input {', '.join(missing)}")
    sizes = _axis_sizes(given, signature)
    prepared = {}
    for spec in signature.inputs:
        array = given[spec.name] if spec.name in given else _default(spec, sizes)
        if not allow_nonfinite:
            _check_finite(array, spec.name)
        prepared[spec.name] = _cast(array, spec)
        _check_ids(prepared[spec.name], spec.name, limits)
        if signature.lxmert_task:  # a user's own module may mean something else by these names
            _check_meaning(prepared[spec.name], spec.name)
    return prepared


def _as_array(value: Any, name: str) -> NDArray[np.generic]:
    """Returns an array, a nested list or a PyTorch tensor of any device as an array. PyTorch is not imported for it."""
    if hasattr(value, "detach"):
        if value.is_meta or str(value.layout) != "torch.strided":
            raise InputError(
                f"{name} is a {'meta' if value.is_meta else 'sparse'} tensor: give one that holds its numbers"
            )
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value  # which numpy lacks
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(
            f"{name} holds lists of different lengths: pad them to one length, and mask the padding"
        ) from error


def _axis_sizes(inputs: Mapping[str, NDArray[np.generic]], signature: Signature) -> dict[str, int]:
    """The size of each dynamic axis. ``InputError``: two inputs have different sizes of one axis, or a shape does not fit."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        if spec.name not in inputs:
            continue
        shape = np.shape(inputs[spec.name])
        wanted = tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.axes)
        fits = len(shape) == len(wanted) and all(
            isinstance(w, str) or w == got for w, got in zip(wanted, shape, strict=True)
        )
        if not fits or 0 in shape:
            raise InputError(f"{spec.name} has shape {list(shape)}; expected [{', '.join(map(str, wanted))}]")
        sizes |= {axis: size for axis, size in zip(spec.axes, shape, strict=True) if isinstance(axis, str)}
    return sizes


def _default(spec: TensorSpec, sizes: Mapping[str, int]) -> NDArray[np.generic]:
    fill = np.ones if spec.name.endswith(MASK) else np.zeros
    return fill(spec.shape(sizes), dtype=spec.dtype)


def _cast(array: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    wanted = np.dtype(spec.dtype)
    if wanted.kind == "i" and array.dtype.kind not in "iub":
        raise InputError(f"{spec.name} must hold integers, not {array.dtype}")
    if wanted.kind == "f" and array.dtype.kind not in "fiub":
        raise InputError(f"{spec.name} must hold numbers, not {array.dtype}")
    if wanted.kind == "i" and not np.can_cast(array.dtype, wanted) and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"{spec.name} holds {array.min()} to {array.max()}, which {wanted} cannot hold")
    with np.errstate(over="ignore"):  # overflow is reported below
        cast = np.ascontiguousarray(array.astype(wanted, copy=False))
    if not np.can_cast(array.dtype, wanted) and not np.array_equal(np.isfinite(array), np.isfinite(cast)):
        largest = np.abs(array[np.isfinite(array)]).max()
        raise InputError(f"{spec.name} reaches {largest:.3g}, which {wanted} cannot hold")
    return cast


def _check_finite(array: NDArray[np.generic], name: str) -> None:
    """``InputError``: a number is NaN or infinite. An int8 model would answer such inputs like any others."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"{name} holds NaN or infinity: mend its numbers, or call run(…, allow_nonfinite=True) to see what comes out"
        )


def _check_meaning(array: NDArray[np.generic], name: str) -> None:
    if name.endswith(MASK):
        check_mask(array, name)
    elif name == BOXES:
        _check_boxes(array)


def check_mask(array: NDArray[np.generic], name: str) -> None:
    """``InputError``: a mask holds other values than 0 and 1."""
    other = array[(array != 0) & (array != 1)]
    if other.size:
        raise InputError(
            f"{name} holds {other.flat[0]:g}; a mask holds 1 for what is seen and 0 for what is masked: give (mask > 0) "
            "if yours holds other positive numbers, (mask == 0) if it is to be added to scores"
        )


def _check_boxes(array: NDArray[np.generic]) -> None:
    least, largest = float(array.min()), float(array.max())
    if array.shape[-1] == 4 and (least < BOX_RANGE[0] or largest > BOX_RANGE[1]):
        warnings.warn(
            f"{BOXES} holds {least:g} to {largest:g}; boxes are shares of the picture's size, from 0 to 1: divide x by "
            "the picture's width and y by its height",
            InputWarning,
            stacklevel=5,
        )


def _check_ids(array: NDArray[np.generic], name: str, limits: InputLimits) -> None:
    bounds = {"input_ids": ("vocab_size", limits.vocabulary), "token_type_ids": ("type_vocab_size", limits.token_types)}
    if name not in bounds:
        return
    field, size = bounds[name]
    if (low := array.min()) < 0 or (high := array.max()) >= size:
        raise InputError(f"{name} holds {low if low < 0 else high}; it must be at least 0 and below {field} {size}")
    if array.shape[-1] > limits.positions:
        raise InputError(
            f"{name} has {array.shape[-1]} words; the position table ends at {limits.positions}: cut the text"
        )
