"""Shortens tracing and translation by work that changes nothing in the graph; together it is three quarters of the time.

It reaches into parts of PyTorch and onnxscript that are not public. A version that names one of them otherwise does its usual
work.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

aten = torch.ops.aten
TRANSLATED_AS_THEY_ARE = frozenset((
    aten._assert_tensor_metadata.default, aten.add.Tensor, aten.arange.default, aten.div.Tensor, aten.embedding.default,
    aten.expand.default, aten.gelu.default, aten.layer_norm.default, aten.linear.default, aten.matmul.default,
    aten.mul.Tensor, aten.ones.default, aten.reshape.default, aten.select.int, aten.softmax.int, aten.sub.Tensor,
    aten.sym_size.int, aten.tanh.default, aten.to.dtype, aten.transpose.int, aten.unsqueeze.default, aten.view.default,
    aten.zeros.default,
    operator.mul,  # of sizes
    operator.getitem,  # of results
))  # fmt: skip
PROMOTING = frozenset((aten.add.Tensor, aten.div.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.tanh.default))
ONE_AT_A_TIME = threading.RLock()  # conversions: the tables of PyTorch and onnxscript belong to the whole process
Shape = Sequence[Any]  # of sizes, which may be symbols


@contextmanager
def known_shapes() -> Iterator[None]:
    """While a module is traced, tells the shapes of the commonest results at once.

    PyTorch finds them by taking each operator apart into its steps, and each step checks symbolic sizes: half of the time.
    """
    with ExitStack() as told:
        for kind, shape in RESULTS.items():
            told.enter_context(_told_shape(kind, shape))
        yield


@contextmanager
def _told_shape(kind: Any, shape: Callable[..., Shape | None]) -> Iterator[None]:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    try:
        kernels, cache, whole = kind.py_kernels, kind._dispatch_cache, partial(kind._op_dk, key)
    except AttributeError:
        yield
        return
    usual = kernels.get(key)

    def result(first: Tensor, *others: Any, **options: Any) -> Any:
        # A real tensor, or a constant that is known, has values: they are computed.
        known = shape(first, *others, **options) if type(first) is FakeTensor and first.constant is None else None
        return (usual or whole)(first, *others, **options) if known is None else first.new_empty(known)

    kernels[key] = result
    cache.clear()
    try:
        yield
    finally:
        del kernels[key]
        if usual is not None:
            kernels[key] = usual
        cache.clear()


def _of_linear(first: Tensor, weight: Tensor, bias: Tensor | None = None) -> Shape | None:
    rows, columns = weight.shape if weight.dim() == 2 else (None, None)
    fits = _same(first.shape[-1:], (columns,)) and (bias is None or _same(bias.shape, (rows,)))
    return (*first.shape[:-1], rows) if fits and _of_one_dtype(first, weight, bias) else None


def _of_matmul(first: Tensor, second: Tensor) -> Shape | None:
    fits = first.dim() >= 2 and _same((*first.shape[:-2], first.shape[-1]), second.shape[:-1])
    return (*first.shape[:-1], second.shape[-1]) if fits and _of_one_dtype(first, second) else None


def _of_layer_norm(
    first: Tensor, shape: Shape, weight: Tensor | None = None, bias: Tensor | None = None, *_: Any
) -> Shape | None:
    fits = all(
        _same(part, shape) for part in (first.shape[-len(shape) :], *(p.shape for p in (weight, bias) if p is not None))
    )
    return first.shape if fits and _of_one_dtype(first, weight, bias) else None


def _same(one: Shape, other: Shape) -> bool:
    """Whether two shapes are equal whatever the sizes turn out to be; asking so adds no condition to the trace."""
    return len(one) == len(other) and all(
        b is not None and statically_known_true(a == b) for a, b in zip(one, other, strict=True)
    )


def _of_one_dtype(*tensors: Tensor | None) -> bool:
    return len({tensor.dtype for tensor in tensors if tensor is not None}) == 1


# All others, and these where they broadcast or mix dtypes, are found by PyTorch.
RESULTS: dict[Any, Callable[..., Shape | None]] = {
    aten.linear.default: _of_linear,
    aten.matmul.default: _of_matmul,
    aten.layer_norm.default: _of_layer_norm,
}


@contextmanager
def short_translation(program: torch.export.ExportedProgram, others: Container[Any] = ()) -> Iterator[None]:
    """While a traced program is translated to ONNX, skips the exporter's steps that it does not need.

    If every operator can be translated directly, this is decomposition (none of these operators writes to its inputs, so
    nothing needs to be functionalised). If none mixes dtypes, it is type promotion, too, and reading the translations of all
    other operators, which promotion may insert. ``others``: operators with translations of their own.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    if not all(node.target in TRANSLATED_AS_THEY_ARE or node.target in others for node in nodes):
        yield
        return
    mixed = any(_mixes_dtypes(node) for node in nodes)
    for node in nodes:
        if node.target is aten._assert_tensor_metadata.default:  # a check that tracing adds to a cast; computes nothing
            program.graph.erase_node(node)
    program.run_decompositions = lambda *table, **options: program
    if mixed:
        yield
        return
    with _no_type_promotion(), _few_translations({_name(node.target) for node in nodes}):
        yield


def _name(target: Any) -> str:
    """The name of an operator in onnxscript's table."""
    return f"_operator::{target.__name__}" if target in (operator.mul, operator.getitem) else str(target.name())


@contextmanager
def _few_translations(names: set[str]) -> Iterator[None]:
    """Has the exporter read the translations of these operators alone: it parses the source of each, 500 in all."""
    try:
        import_module("onnxscript.function_libs.torch_lib.ops")  # fills the table
        module: Any = import_module("onnxscript.function_libs.torch_lib.registration")
        table, few = module.default_registry, module.Registry()
        few._registry |= {name: functions for name, functions in table._registry.items() if name in names}
    except (ImportError, AttributeError):
        yield
        return
    module.default_registry = few
    try:
        yield
    finally:
        module.default_registry = table


@contextmanager
def _no_type_promotion() -> Iterator[None]:
    """Skips the exporter's type promotion."""
    try:
        passes: Any = import_module("torch.onnx._internal.exporter._fx_passes")
        promote = passes.insert_type_promotion_nodes
    except (ImportError, AttributeError):
        yield
        return
    passes.insert_type_promotion_nodes = lambda graph_module: None
    try:
        yield
    finally:
        passes.insert_type_promotion_nodes = promote


def _mixes_dtypes(node: torch.fx.Node) -> bool:
    """Whether an operator combines tensors of different dtypes, or a tensor with a dynamic size."""
    if node.target not in PROMOTING:
        return False
    values = [arg.meta.get("val") for arg in (*node.args, node) if isinstance(arg, torch.fx.Node)]
    return len({value.dtype if isinstance(value, Tensor) else None for value in values}) > 1
