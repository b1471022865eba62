"""The types of what each node of an ONNX file computes, as far as the file states them. Needs no package that knows ONNX."""

from __future__ import annotations

from lxmert_export.files.wire_formats import Message

# Numbers of the fields in onnx.proto.
GRAPH = 7
NODES, INPUTS, OUTPUTS, VALUES = 1, 11, 12, 13  # of a graph
RESULTS, NAME = 2, 3  # of a node
VALUE_NAME, TYPE, TENSOR, ELEMENT = 1, 2, 1, 1  # of a value: its type, that of a tensor, that of its elements
# Numbers of types of elements: float, float16, double, bfloat16.
FLOATS = frozenset({1, 10, 11, 16})


def nodes_of_floats(content: memoryview) -> dict[str, bool | None]:
    """Returns for each node of a file, by its name, whether it computes floating-point numbers; None if the file does not say.

    ``ValueError``: the bytes are no ONNX file.
    """
    types: dict[str, int] = {}
    results: dict[str, list[str]] = {}
    for graph in Message.root(content).messages(GRAPH):
        for number, value in graph.fields():
            if isinstance(value, int):
                continue
            if number in (INPUTS, OUTPUTS, VALUES):
                types[value.last_text(VALUE_NAME)] = _element(value)
            elif number == NODES:
                results[value.last_text(NAME)] = [result.text() for result in value.messages(RESULTS)]
    return {name: _any_float([types.get(value, 0) for value in values if value]) for name, values in results.items()}


def _element(value: Message) -> int:
    elements = [
        number
        for tensor in value.messages(TYPE, TENSOR)
        for field, number in tensor.fields()
        if field == ELEMENT and isinstance(number, int)
    ]
    return elements[-1] if elements else 0


def _any_float(types: list[int]) -> bool | None:
    if FLOATS & set(types):
        return True
    return None if 0 in types or not types else False
