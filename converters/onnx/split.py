"""Splits a written ONNX file at the states of the objects: one graph for the images, one for the questions about them.

The two graphs hold the nodes of ``model.onnx`` as they are, and read the weights from its data file. What is computed does not
change, in any precision; of several questions about one image, the images' half is computed once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto
from onnx.helper import make_node, tensor_dtype_to_np_dtype

from converters.to_onnx import check_written
from lxmert_export.artifact.directory import QUESTION_FILE, VISION_FILE
from lxmert_export.errors import ConversionError
from lxmert_export.spec.halves import STATES, Halves
from lxmert_export.spec.signature import DYNAMIC_AXES, IMAGES, TensorSpec

OF_IMAGES = "visual_"  # how the names of the images' inputs begin
MASK = "visual_attention_mask"


def write_halves(path: Path) -> Halves:
    """Writes ``vision.onnx`` and ``question.onnx`` beside a written file; in that, the states get their name.

    ``ConversionError``: its later layers read of the images more than one value, or nothing.
    """
    model = onnx.load(path, load_external_data=False)
    states = _named_states(model.graph)
    path.write_bytes(model.SerializeToString(deterministic=True))
    flow = Flow(model.graph)
    vision_outputs = [name for name in flow.outputs if flow.is_of_images(name)]
    question_outputs = [name for name in flow.outputs if name not in vision_outputs]
    seen = [states, *(name for name in vision_outputs if name != states)]
    vision_inputs = _write_part(model, path.with_name(VISION_FILE), seen, given=None)
    question_inputs = _write_part(model, path.with_name(QUESTION_FILE), question_outputs, given=states)
    return Halves(_spec_of(model.graph, states), vision_inputs, question_inputs, tuple(vision_outputs))


class Flow:
    """How values flow through a graph from its inputs to its outputs."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self.outputs = [value.name for value in graph.output]

    def is_of_images(self, name: str) -> bool:
        """Whether a value is computed of the images alone."""
        sources = self._sources.get(name, frozenset())
        return bool(sources) and all(source.startswith(OF_IMAGES) for source in sources)

    def last_bottleneck(self) -> str | None:
        """Returns the last value through which all passes that other inputs meet of the images; None: there is none."""
        for node in reversed(self._graph.node):
            for name in node.output:
                if self.is_of_images(name) and self._all_passes(name):
                    return str(name)
        return None

    @cached_property
    def _sources(self) -> dict[str, frozenset[str]]:
        """The graph's inputs of which each value is computed."""
        sources = {value.name: frozenset({value.name}) for value in self._graph.input}
        for node in self._graph.node:
            read = frozenset[str]().union(*(sources.get(name, frozenset()) for name in node.input))
            sources.update(dict.fromkeys(node.output, read))
        return sources

    def _all_passes(self, name: str) -> bool:
        images = {value.name for value in self._graph.input if value.name.startswith(OF_IMAGES)} - {MASK}
        return self._meets_others({name}, past=None) and not self._meets_others(images, past=name)

    def _meets_others(self, names: Collection[str], past: str | None) -> bool:
        """Whether a value of other inputs, too, is computed of the named ones; not counting what passes through ``past``."""
        reached = set(names)
        for node in self._graph.node:
            if reached.intersection(node.input):
                reached.update(name for name in node.output if name != past)
                if any(not self.is_of_images(name) for name in node.output):
                    return True
        return False


def _named_states(graph: GraphProto) -> str:
    """Returns the name of the states, which is changed to ``object_states`` unless they are an output of the graph.

    numpy, and so a program that hands them from one half to the other, has no bf16: of such states the graph gets a float32 copy,
    which is exact, and reads that. ``ConversionError``: there are none.
    """
    flow = Flow(graph)
    states = flow.last_bottleneck()
    if states is None:
        of_images = ", ".join(value.name for value in graph.input if value.name.startswith(OF_IMAGES))
        raise ConversionError(
            f"{graph.name}: cannot be split: no single value holds all that its later layers read of the images ({of_images})"
        )
    if _info_of(graph, states).type.tensor_type.elem_type == TensorProto.BFLOAT16:
        return _widen(graph, states, _free_name(graph))
    if states in flow.outputs:
        return states
    name = _free_name(graph)
    _rename(graph.node, states, name)
    _info_of(graph, states).name = name
    return name


def _free_name(graph: GraphProto) -> str:
    """``object_states``, or that with lines behind it if a user's module has a value of that name."""
    taken = {value.name for value in (*graph.input, *graph.output)} | {
        name for node in graph.node for name in node.output
    }
    name = STATES
    while name in taken:
        name += "_"
    return name


def _widen(graph: GraphProto, states: str, name: str) -> str:
    """Casts the states to float32 and back, between the node that computes them and those that read them."""
    info = ValueInfoProto()
    info.CopyFrom(_info_of(graph, states))
    info.name, info.type.tensor_type.elem_type = name, TensorProto.FLOAT
    graph.value_info.append(info)
    place = next(number for number, node in enumerate(graph.node) if states in node.output) + 1
    before, after = list(graph.node[:place]), list(graph.node[place:])
    narrow = f"{name}/bfloat16"
    _rename(after, states, narrow)
    casts = [
        make_node("Cast", [states], [name], f"{name}/Cast", to=TensorProto.FLOAT),
        make_node("Cast", [name], [narrow], f"{narrow}/Cast", to=TensorProto.BFLOAT16),
    ]
    nodes = GraphProto(node=[*before, *casts, *after]).node  # copies, before the nodes themselves are removed
    del graph.node[:]
    graph.node.extend(nodes)
    return name


def _rename(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _write_part(model: ModelProto, path: Path, outputs: Sequence[str], *, given: str | None) -> tuple[str, ...]:
    """Writes the nodes that compute some outputs, as they are; returns the names of the whole graph's inputs that they read.

    ``given``: the value that the part is given.
    """
    graph = model.graph
    nodes, read = _needed(graph, outputs, given)
    taken = [value for value in graph.input if value.name in read]
    made = {name for node in nodes for name in node.output}
    part = ModelProto()
    part.CopyFrom(model)
    for field in (part.graph.node, part.graph.input, part.graph.output, part.graph.initializer, part.graph.value_info):
        del field[:]
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    part.graph.input.extend(taken + ([_info_of(graph, given)] if given else []))
    part.graph.output.extend(_info_of(graph, name) for name in outputs)
    part.graph.value_info.extend(info for info in graph.value_info if info.name in made.difference(outputs))
    path.write_bytes(part.SerializeToString(deterministic=True))
    check_written(path)
    return tuple(value.name for value in taken)


def _needed(graph: GraphProto, outputs: Sequence[str], given: str | None) -> tuple[list[onnx.NodeProto], set[str]]:
    """Returns the nodes that compute some outputs, in the graph's order, and the names of all that they read."""
    nodes, read, wanted = [], set[str](), set(outputs)
    for node in reversed(graph.node):
        if (wanted - {given}).intersection(node.output):
            nodes.append(node)
            read.update(node.input)
            wanted.update(node.input)
    return nodes[::-1], read


def _spec_of(graph: GraphProto, name: str) -> TensorSpec:
    """The states' spec. ``ConversionError``: a size of theirs is none that a call gives."""
    tensor = _info_of(graph, name).type.tensor_type
    axes = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim)
    if odd := [axis for axis in axes if isinstance(axis, str) and axis not in (*DYNAMIC_AXES, IMAGES)]:
        raise ConversionError(f"{graph.name}: cannot be split: {name} has an axis of the unknown size {odd[0]!r}")
    return TensorSpec(name, str(tensor_dtype_to_np_dtype(tensor.elem_type)), axes)


def _info_of(graph: GraphProto, name: str) -> ValueInfoProto:
    """``ConversionError``: the graph does not say a value's dtype and shape."""
    for info in (*graph.value_info, *graph.output):
        if info.name == name:
            found: ValueInfoProto = info
            return found
    raise ConversionError(f"{graph.name}: cannot be split: the shape of {name} is not known")
