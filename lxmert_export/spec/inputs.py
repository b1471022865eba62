"""Prepares inputs for a runner: fills in, casts, and checks them against the signature and the model's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Signature, TensorSpec

Arrays = dict[str, NDArray[np.generic]]


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


def prepare_inputs(inputs: Mapping[str, NDArray[np.generic]], signature: Signature, limits: InputLimits) -> Arrays:
    """Returns inputs as the signature has them, in its order and dtypes.

    Optional inputs that are left out are filled in: masks with ones, token types with zeros. ``InputError``: a name is unknown or
    missing, or a shape, a dtype or an id does not fit.
    """
    known = {spec.name for spec in signature.inputs}
    if unknown := sorted(set(inputs) - known):
        raise InputError(
            f"unknown input {', '.join(unknown)}; the inputs are {', '.join(s.name for s in signature.inputs)}"
        )
    if missing := [s.name for s in signature.inputs if s.name not in inputs and not s.optional]:
        raise InputError(f"missing input {', '.join(missing)}")
    sizes = _axis_sizes(inputs, signature)
    prepared = {}
    for spec in signature.inputs:
        array = _default(spec, sizes) if spec.name not in inputs else np.asarray(inputs[spec.name])
        prepared[spec.name] = _cast(array, spec)
        _check_ids(prepared[spec.name], spec.name, limits)
    return prepared


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
    fill = np.ones if spec.name.endswith("attention_mask") else np.zeros
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
