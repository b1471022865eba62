"""Finds what is known to go wrong in fp16 in an ONNX graph, before anything is built from the graph.

The dtypes in the graph decide: an operator between a cast to float32 and a cast back is an island, and is judged as
float32. This module checks weights and structure; ``activation_ranges`` checks the values on real inputs.

Sources: NVIDIA/TensorRT issues 1196, 2118, 2466, 4493 and onnxconverter-common's ``float16.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.graphs.onnx_decomposition import load_decomposed
from lxmert_export.graphs.onnx_types import MOVES

LARGEST_HALF = 65504.0
LEAST_NORMAL_HALF = 2.0**-14
# A constant at or below this is taken for a mask: with scores added, it leaves fp16's range. No weight is that large.
MASK_LIKE = -6e4
# (x - mean)² overflows fp16 beyond this.
LARGEST_SQUARED = LARGEST_HALF**0.5
# A larger share of subnormal weights (each keeps 10 bits or fewer) is a warning: no trained tensor should have it.
MANY_SUBNORMAL = 0.01
# The constants of GELU's tanh approximation, as exporters write them: sqrt(2 / pi) and the cubic term.
TANH_GELU = (0.7978845608, 0.044715)
# Islands are chosen when the ONNX graph is exported; `lxmert-export tensorrt` cannot change them.
AUTO_ISLANDS = "--fp32-islands auto when the ONNX graph is exported"
ISLANDS = "export with standard islands or --fp32-islands auto"
REEXPORT = "export again with lxmert-export onnx --fp16"
NOTHING_TO_DO = "nothing to do"
BOUNDED_MASK = f"{REEXPORT}, whose mask is -10000"
# Operators through which a constant can reach fp16 without becoming smaller.
CARRIES = MOVES | {"Cast", "Mul", "Neg", "Sub", "Where"}

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something in a graph that goes wrong, or may go wrong, in fp16.

    | severity    | meaning                                              |
    |-------------|------------------------------------------------------|
    | ``error``   | expect wrong numbers or NaN                          |
    | ``warning`` | accuracy is lost, or fp16's range is nearly used up  |
    | ``note``    | worth knowing                                        |

    ``seen`` describes the problem and ``figure`` is its number; ``mend`` names the flag or the change that helps. For a note
    there is nothing to do.
    """

    severity: Severity
    rule: str
    node: str
    module: str
    seen: str
    figure: float
    mend: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.rule}: {self.node}: {self.seen}; {self.mend}"


def lint_fp16(path: Path, *, originals: Mapping[str, NDArray[Any]] | None = None) -> list[Finding]:
    """Returns every finding about a file's structure and weights, the worst first.

    ``originals``: the weights before they became fp16, by initializer name, in any layout. With them the linter can
    count the weights that became 0 in fp16; without them these look like weights that were 0 before.
    """
    graph = load_decomposed(path).graph
    found = [finding for rule in RULES for finding in rule(graph)]
    found += _lint_weights(graph, originals or {})
    return worst_first(found)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sorts findings: errors, then warnings, then notes; each group stays in the graph's order."""
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def module_path(node: str) -> str:
    """Returns ``module.path`` for our node name ``module.path/Operator`` or torch.onnx's ``/module/path/Operator``."""
    return ".".join(part for part in node.split("/")[:-1] if part)


def _infinite_constants(graph: ir.Graph) -> Iterator[Finding]:
    for value, array in _constants(graph):
        if _is_half_weight(value, array):
            continue  # reported as weight-overflow
        if infinite := int(np.isinf(array).sum()):
            yield _finding("error", "infinite-constant", _reader(value), f"{value.name} holds {infinite} infinite numbers",
                           float(array.min()), f"a fully masked row becomes NaN: {BOUNDED_MASK}")  # fmt: skip


def _mask_constants(graph: ir.Graph) -> Iterator[Finding]:
    for value, array in _constants(graph):
        finite = array[np.isfinite(array)]
        least = float(finite.min(initial=0.0))
        if least > MASK_LIKE:
            continue
        half = _reaches_half(value)
        seen = f"{value.name} is {least:.4g}, which " + ("reaches fp16" if half else "stays in float32")
        yield _finding("error" if half else "warning", "huge-mask-constant", _reader(value), seen, least,
                       f"{BOUNDED_MASK}, or keep its Add and Softmax in float32: {AUTO_ISLANDS}")  # fmt: skip


def _epsilons(graph: ir.Graph) -> Iterator[Finding]:
    for node in graph:
        if "epsilon" in node.attributes and _is_half(node.inputs[0]):
            epsilon = node.attributes["epsilon"].as_float()
            if np.float16(epsilon) == 0:
                yield _epsilon_finding(node, epsilon)
        if node.op_type == "Add" and _is_half(node.outputs[0]) and _reads(node.outputs[0], ("Sqrt", "Pow")):
            for value in node.inputs:
                array = _array(value)
                if array is not None and array.size == 1 and np.float16(array.item()) == 0:
                    yield _epsilon_finding(node, float(array.item()))


def _epsilon_finding(node: ir.Node, epsilon: float) -> Finding:
    seen = f"epsilon {epsilon:.3g} is 0 in fp16"
    return _finding("error", "epsilon-underflow", node, seen, epsilon, f"compute it in float32: {ISLANDS}")


def _half_layer_norms(graph: ir.Graph) -> Iterator[Finding]:
    limit = f"squares overflow where a value is more than {LARGEST_SQUARED:.0f} from the mean"
    for node in graph:
        if node.op_type in ("LayerNormalization", "RMSNormalization") and _is_half(node.inputs[0]):
            # The operator may compute its statistics in float32 (stash_type), but not every runtime does.
            yield _finding("warning", "half-layer-norm", node, limit, LARGEST_SQUARED, ISLANDS)
        if node.op_type == "ReduceMean" and _is_half(node.outputs[0]):
            square = node.inputs[0].producer() if node.inputs[0] is not None else None
            if square is not None and _is_square(square):
                yield _finding("error", "decomposed-layer-norm", node, limit, LARGEST_SQUARED,
                               f"{REEXPORT}, which writes one LayerNormalization, in float32")  # fmt: skip


def _is_square(node: ir.Node) -> bool:
    if node.op_type == "Pow":
        exponent = _array(node.inputs[1])
        return exponent is not None and exponent.size == 1 and exponent.item() == 2
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _tanh_gelus(graph: ir.Graph) -> Iterator[Finding]:
    for node in graph:
        approximate = node.attributes["approximate"].as_string() if "approximate" in node.attributes else "none"
        whole = node.op_type == "FastGelu" or (node.op_type == "Gelu" and approximate == "tanh")
        if whole or (node.op_type == "Tanh" and _follows_constant(node, TANH_GELU, depth=5)):
            yield _finding("warning", "tanh-gelu", node, "GELU by tanh differs from the exact GELU by up to 4.7e-4", 4.7e-4,
                           f"{REEXPORT}, which uses the exact GELU, unless the model was trained with tanh")  # fmt: skip


def _follows_constant(node: ir.Node, wanted: tuple[float, ...], *, depth: int) -> bool:
    """Returns whether a node, or one of the nodes up to ``depth`` before it, reads one of the ``wanted`` constants."""
    for value in node.inputs:
        array = _array(value)
        if array is not None:
            if array.size == 1 and any(abs(float(array.item()) / constant - 1) < 2e-3 for constant in wanted):
                return True
            continue
        before = value.producer() if value is not None and depth else None
        if before is not None and _follows_constant(before, wanted, depth=depth - 1):
            return True
    return False


def _lint_weights(graph: ir.Graph, originals: Mapping[str, NDArray[Any]]) -> Iterator[Finding]:
    for value, array in _constants(graph):
        if not _is_half_weight(value, array):
            continue
        name, reader = value.name or "", _reader(value)
        original, multiplies = originals.get(name, array), not _is_added(value)
        with np.errstate(over="ignore"):
            stored = array.astype(np.float16)
        magnitude = np.abs(stored)
        if overflowed := int((~np.isfinite(stored)).sum()):
            yield _finding("error", "weight-overflow", reader, f"{name}: {overflowed} of {array.size} weights are not finite",
                           overflowed, f"keep {reader.name} in float32: {AUTO_ISLANDS}")  # fmt: skip
        if flushed := int(np.count_nonzero(original) - np.count_nonzero(stored)):
            yield _few_or_many("weight-underflow", reader, name, "became 0", flushed, array.size, multiplies=multiplies)
        if subnormal := int(((magnitude > 0) & (magnitude < LEAST_NORMAL_HALF)).sum()):
            yield _few_or_many(
                "subnormal-weights", reader, name, "are subnormal", subnormal, array.size, multiplies=multiplies
            )


def _few_or_many(
    rule: str, reader: ir.Node, name: str, what: str, found: int, size: int, *, multiplies: bool
) -> Finding:
    """A warning if the share of weights is large and they multiply, else a note, for which there is nothing to do."""
    many = multiplies and found / size > MANY_SUBNORMAL
    seen = f"{name}: {found} of {size} weights {what} ({found / size:.2%})"
    mend = f"rescale the layer, or keep it in float32: {AUTO_ISLANDS}" if many else NOTHING_TO_DO
    return _finding("warning" if many else "note", rule, reader, seen, found, mend)


RULES: tuple[Callable[[ir.Graph], Iterator[Finding]], ...] = (
    _infinite_constants, _mask_constants, _epsilons, _half_layer_norms, _tanh_gelus,
)  # fmt: skip


def _finding(severity: Severity, rule: str, node: ir.Node, seen: str, figure: float, mend: str) -> Finding:
    name = node.name or node.op_type
    return Finding(severity, rule, name, module_path(name), seen, figure, mend)


def _constants(graph: ir.Graph) -> Iterator[tuple[ir.Value, NDArray[Any]]]:
    """Yields the floating-point initializers and constant nodes that are read, with their numbers."""
    values = [
        *graph.initializers.values(),
        *(n.outputs[0] for n in graph if n.op_type in ("Constant", "ConstantOfShape")),
    ]
    for value in values:
        array = _array(value)
        if array is not None and array.size and array.dtype.kind == "f" and value.uses():
            yield value, array


def _array(value: ir.Value | None) -> NDArray[Any] | None:
    """Returns the numbers of an initializer or a constant node; None for other values."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type not in ("Constant", "ConstantOfShape"):
        return None
    if "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    number = next(iter(node.attributes.values()), None)
    return None if number is None or number.name != "value_float" else np.array(number.as_float(), np.float32)


def _is_half(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT16


def _is_half_weight(value: ir.Value, array: NDArray[Any]) -> bool:
    """Returns whether this is a weight in fp16, stored or cast so; a mask (only 0 and infinity) is not a weight."""
    if array.ndim == 0 or not np.any(array[np.isfinite(array)]):
        return False
    casts = [use.node for use in value.uses() if use.node.op_type == "Cast"]
    return _is_half(value) or any(_is_half(cast.outputs[0]) for cast in casts)


def _is_added(value: ir.Value) -> bool:
    """Returns whether a weight is a bias: what a small bias loses in fp16 (at most 2⁻²⁵), its sum would lose too."""
    readers = [use.node for use in value.uses()]
    return all(node.op_type == "Add" or (node.op_type == "Cast" and _is_added(node.outputs[0])) for node in readers)


def _reader(value: ir.Value) -> ir.Node:
    return next(iter(value.uses())).node


def _reads(value: ir.Value, operators: tuple[str, ...]) -> bool:
    return any(use.node.op_type in operators for use in value.uses())


def _reaches_half(value: ir.Value, depth: int = 6) -> bool:
    """Returns whether a constant is fp16, or becomes fp16 after at most ``depth`` of the operators in ``CARRIES``."""
    if _is_half(value):
        return True
    readers = [use.node for use in value.uses() if use.node.op_type in CARRIES]
    return depth > 0 and any(_reaches_half(node.outputs[0], depth - 1) for node in readers)
