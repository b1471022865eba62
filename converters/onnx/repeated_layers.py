"""Traces one layer of each stack of equal layers, and copies its nodes for the others: tracing is half of a conversion's time.

While a module is traced, the first layer of a stack stands between two marks, and each other layer is one node in its place.
``copy_layers`` then puts a copy of what is between the marks in the place of such a node, with the weights of its layer. The
file is the same to the byte.

Only models of ours, as they are written: what code of others does with their layers is not known before it is traced.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import partial
from importlib import import_module
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from converters.onnx.graph import MODULE_SCOPES
from lxmert_export.model import lxmert
from lxmert_export.model.signature_module import module_state
from lxmert_export.spec.config import LxmertConfig

DOMAIN = "lxmert_export.traced"
BEGIN, END, LAYER = "Begin", "End", "Layer"
# Attributes of these nodes: the path of the stack in the module, and the layer's place in it.
STACK, PLACE = "stack", "place"
REPEATED = (lxmert.EncoderLayer, lxmert.CrossModalityLayer)
PACKAGES = ("lxmert_export.model.", "torch.nn.modules.")
ATTRIBUTES = frozenset(vars(nn.Module()))  # of every module; its hooks among them
BESIDE_WEIGHTS = "companions"  # where a checkpoint lay, its tokenizer and its labels: no forward pass reads them
Results = tuple[Tensor | None, ...]


@contextmanager
def first_layers_alone(module: nn.Module) -> Iterator[None]:
    """While a module is traced, computes only the first layer of each stack of equal layers of ours."""
    stacks = list(_stacks(module)) if _exporter() else []
    for stack in stacks:
        for place, layer in enumerate(stack.layers):
            layer.forward = partial(stack.later, place) if place else partial(stack.first, layer.forward)
    try:
        yield
    finally:
        for stack in stacks:
            for layer in stack.layers:
                del layer.forward


@dataclass
class _Stack:
    """Equal layers, one after the other. ``gave``: what the first one returned in this trace."""

    path: str
    layers: Sequence[nn.Module]
    gave: Results = ()

    def first(self, forward: Any, *inputs: Any) -> Results:
        """Computes the first layer between two marks."""
        results = forward(*self._node(BEGIN, 0, inputs, inputs))
        self.gave = self._node(END, 0, results, results)
        return self.gave

    def later(self, place: int, *inputs: Any) -> Results:
        """Puts one node in the place of another layer: our models call all layers of a stack alike, the first one first."""
        return self._node(LAYER, place, inputs, self.gave)

    def _node(self, kind: str, place: int, inputs: Sequence[Any], like: Sequence[Any]) -> tuple[Any, ...]:
        """A node that takes the tensors among ``inputs`` and returns tensors as those of ``like``, among what else is there."""
        results = iter(_marked(_tensors(inputs), _tensors(like), kind, self.path, place))
        return tuple(next(results) if isinstance(one, Tensor) else one for one in like)


@torch.library.custom_op("lxmert_export::marked", mutates_args=())
def _marked(inputs: list[Tensor], like: list[Tensor], kind: str, stack: str, place: int) -> list[Tensor]:
    """Takes ``inputs`` and returns tensors of the shapes and dtypes of ``like``. It is traced, and never computed."""
    raise NotImplementedError


@_marked.register_fake
def _(inputs: list[Tensor], like: list[Tensor], kind: str, stack: str, place: int) -> list[Tensor]:
    return [one.new_empty(one.shape) for one in like]


def _translated(
    inputs: Sequence[ir.Value], like: Sequence[ir.Value], kind: str, stack: str, place: int
) -> Sequence[ir.Value]:
    """The node of a mark in the ONNX graph, until ``copy_layers`` replaces it."""
    node = ir.node(kind, inputs, {STACK: stack, PLACE: place}, domain=DOMAIN, version=1, num_outputs=len(like))
    _exporter().current_tracer.nodes.append(node)
    return node.outputs


def _exporter() -> Any:
    """The part of PyTorch's exporter that collects nodes, which is not public; None in a version that names it otherwise."""
    try:
        exporter: Any = import_module("torch.onnx._internal.exporter._core")
    except ImportError:
        return None
    return exporter if hasattr(exporter, "current_tracer") else None


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.lxmert_export.marked.default: _translated}


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def _stacks(module: nn.Module) -> Iterator[_Stack]:
    """Lists of two or more equal layers in a model of ours as it is written, of which no other layer shares a weight."""
    if any(architecture(child) is None for child in module.children()):
        return
    owners = Counter(map(id, module_state(module).values()))
    for path, layers in module.named_modules():
        if not isinstance(layers, nn.ModuleList) or len(layers) < 2 or type(layers[0]) not in REPEATED:
            continue
        in_order = [name for name, _ in layers.named_children()] == [str(place) for place in range(len(layers))]
        shared = any(owners[id(tensor)] > 1 for tensor in module_state(layers).values())
        if in_order and not shared and len(set(map(architecture, layers))) == 1:
            yield _Stack(path, list(layers))


def architecture(module: nn.Module) -> str | None:
    """Returns all that the trace of a module depends on, without its weights' values; None if that cannot be told.

    It cannot of a module that is more than an architecture of ours: a changed ``forward``, a hook, an attribute that is no
    plain value.
    """
    if nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    lines = list(_weights(module))
    for name, part in module.named_modules():
        kind = type(part)
        values = {key: _read(value) for key, value in vars(part).items() if key not in {*ATTRIBUTES, BESIDE_WEIGHTS}}
        hooks = [value for key, value in vars(part).items() if key in ATTRIBUTES and "hook" in key and value]
        if not kind.__module__.startswith(PACKAGES) or hooks or not all(map(_is_plain, values.values())):
            return None
        if not kind.forward.__globals__["__name__"].startswith(PACKAGES):  # replaced by a function of another module
            return None
        lines.append(f"{name}: {kind.__module__}.{kind.__qualname__} {values}")
    constants = {name: value for name, value in vars(lxmert).items() if name.isupper() and _is_plain(value)}
    return "\n".join([*lines, str(constants)])


def _weights(module: nn.Module) -> Iterator[str]:
    first: dict[int, str] = {}
    for name, tensor in module_state(module).items():
        yield f"{name} {first.setdefault(id(tensor), name)} {tuple(tensor.shape)} {tensor.dtype}"


def _read(value: Any) -> Any:
    """An attribute as a forward pass reads it: a config without what else stood in its file."""
    return value.replace(extra={}) if isinstance(value, LxmertConfig) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple) or is_dataclass(value)


def copy_layers(model: ir.Model, weights: Iterable[str]) -> None:
    """Puts the nodes of each stack's first layer in the place of the nodes that stand for its other layers.

    ``weights``: names of all weights, in the order of the module; the exporter puts those that no node reads yet last.
    """
    graph = model.graph
    marked = [node for node in graph if node.domain == DOMAIN]
    bodies = {_stack_of(node): _body(graph, node) for node in marked if node.op_type == BEGIN}
    for node in marked:
        if node.op_type == LAYER:
            _copy(graph, bodies[_stack_of(node)], node)
    for node in marked:
        if node.op_type in (BEGIN, END):
            for inside, outside in zip(node.inputs, node.outputs, strict=True):
                assert inside is not None
                ir.convenience.replace_all_uses_with(outside, inside, replace_graph_outputs=True)
    graph.remove(marked, safe=True)
    model.opset_imports.pop(DOMAIN, None)
    for value in [graph.initializers.pop(name) for name in weights if name in graph.initializers]:
        graph.initializers.add(value)


@dataclass(frozen=True)
class _Body:
    """What computes a stack's first layer: the nodes between two marks."""

    begin: ir.Node
    nodes: Sequence[ir.Node]
    end: ir.Node


def _stack_of(node: ir.Node) -> str:
    return node.attributes[STACK].as_string()


def _body(graph: ir.Graph, begin: ir.Node) -> _Body:
    nodes = list(graph)
    following = nodes[nodes.index(begin) + 1 :]
    ends = (node for node in following if node.domain == DOMAIN and node.op_type == END)
    end = next(node for node in ends if _stack_of(node) == _stack_of(begin))
    return _Body(begin, following[: following.index(end)], end)


def _copy(graph: ir.Graph, body: _Body, layer: ir.Node) -> None:
    """Puts a copy of a stack's first layer before the node that stands for another one, and what it computes in its place."""
    stack, place = _stack_of(layer), layer.attributes[PLACE].as_int()
    first, own = f"{stack}.0", f"{stack}.{place}"
    values: dict[ir.Value, ir.Value | None] = dict(zip(body.begin.outputs, layer.inputs, strict=True))

    def taken(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in values:
            return None if value is None else values[value]
        if value.is_initializer() and (value.name or "").startswith(f"{first}."):
            return _weight(graph, value, own + (value.name or "").removeprefix(first))
        return value

    for node in body.nodes:
        copy = ir.node(
            node.op_type, [taken(value) for value in node.inputs], domain=node.domain, num_outputs=len(node.outputs),
            attributes=node.attributes, metadata_props=_scopes_in(node.metadata_props, first, own),
        )  # fmt: skip
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type, new.shape = f"{old.name}.{own}", old.type, old.shape
            values[old] = new
        graph.insert_before(layer, copy)
    for inside, outside in zip(body.end.inputs, layer.outputs, strict=True):
        result = taken(inside)
        assert result is not None
        ir.convenience.replace_all_uses_with(outside, result, replace_graph_outputs=True)


def _weight(graph: ir.Graph, first: ir.Value, name: str) -> ir.Value:
    """The weight of another layer that stands where ``first`` stands in the first one. The exporter has no unread weights."""
    if name not in graph.initializers:
        alike = ir.Value(name=name, shape=first.shape, type=first.type, const_value=first.const_value)
        graph.initializers[name] = alike
    return graph.initializers[name]


def _scopes_in(metadata: Mapping[str, str], first: str, own: str) -> dict[str, str]:
    """The metadata of a copied node: the modules that it comes from are those of its own layer."""
    scopes = [
        own + scope.removeprefix(first) if scope == first or scope.startswith(f"{first}.") else scope
        for scope in ast.literal_eval(metadata.get(MODULE_SCOPES, "[]"))
    ]
    return {**metadata, MODULE_SCOPES: str(scopes)}
