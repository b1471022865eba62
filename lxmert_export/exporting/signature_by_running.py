"""Holds a user's signature to what the module really gives: the module is run before anything is converted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import count

import numpy as np

from lxmert_export.errors import ConversionError
from lxmert_export.exporting.model_to_export import ModelToExport
from lxmert_export.reference.determinism import check_deterministic
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, draw_batch
from lxmert_export.spec.signature import DYNAMIC_AXES, Signature

Sizes = dict[str, int]
# The families whose batches have the smallest sizes: of which axis, and how small.
SMALLEST = (("plain", "batch", 1), ("two-tokens", "text", 2), ("one-object", "objects", 1))


def check_by_running(
    model: ModelToExport, signature: Signature, precision: str, *, parity: bool, without: Collection[str] = ()
) -> None:
    """Runs a module on inputs of its signature. ``ConversionError``: it fails, is random, or gives outputs of other shapes.

    It is run in the export's precision and, if ``parity`` is to be proved, as the gate's reference. Sizes of families that
    are left out (``without``) are not tried.
    """
    limits = InputLimits.of(model.config)
    floating = "fp32" if precision == "int8" else precision
    for number, sizes in enumerate(_sizes_to_try(signature, without)):
        generator = np.random.default_rng(0)
        inputs = draw_batch(FAMILY_KINDS["plain"], signature, model.config, sizes, generator)
        for computed in ("fp64", floating) if parity else (floating,):
            with TorchRunner(model.module, signature, limits, computed) as runner:
                _compare_shapes(model.name, signature, sizes, runner.run(inputs))
        if parity and number == 0:
            check_deterministic(model.module, signature, limits, inputs)


def _sizes_to_try(signature: Signature, without: Collection[str]) -> Iterator[Sizes]:
    """Sizes of batch, text and objects that differ from each other and from every fixed size; then the smallest ones."""
    taken = {axis for spec in signature for axis in spec.axes if isinstance(axis, int)}
    free = (number for number in count(2) if number not in taken and number % 2)  # odd: none is twice another
    different = {axis: next(free) for axis in ("text", "batch", "objects")}
    yield different | signature.fixed_sizes
    smallest = different | {axis: size for family, axis, size in SMALLEST if family not in without}
    if not signature.fixed_sizes.keys() >= smallest.keys():
        yield smallest | signature.fixed_sizes


def _compare_shapes(name: str, signature: Signature, sizes: Sizes, outputs: Arrays) -> None:
    for spec in signature.outputs:
        given, said = outputs[spec.name].shape, spec.shape(sizes)
        if given != said:
            at = ", ".join(f"{axis} {sizes[axis]}" for axis in DYNAMIC_AXES)
            raise ConversionError(
                f"signature: output {spec.name} of {name} has the axes {list(spec.axes)}, which is {list(said)} at {at}; the "
                f"module gives {list(given)} there: mend the signature or the module"
            )
