"""Which nodes of a graph onnxruntime put on the CPU, although they compute floating-point numbers, and why."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lxmert_export.artifact.programs.onnx_dtypes import nodes_of_floats
from lxmert_export.errors import ArtifactError, shortened
from lxmert_export.runners.onnx.providers import CUDA

# The setting with which a session remembers where it put each node, and the first version that has it.
RECORD, FIRST_VERSION = "session.record_ep_graph_assignment_info", "1.24"
# They compute sizes, which the CPU needs itself; their results are integers in every graph.
OF_SIZES = frozenset({"Shape", "Size", "Range", "NonZero"})
NO_KERNEL = re.compile(r"CUDA kernel not found in registries for Op type: (\S+) node name: (\S+)")
MOST_NAMED = 5


class Node(NamedTuple):
    """A node of a graph: its name, and its operator with the domain, if that is not ONNX's own."""

    name: str
    operator: str

    def __str__(self) -> str:
        return f"{self.operator} {self.name}".strip()


def nodes_on_cpu(session: Any) -> list[Node]:
    """Returns the nodes that a session put on another device than the GPU, in their order.

    ``ArtifactError``: this onnxruntime cannot tell, so that a silent fallback would not be noticed.
    """
    tell: Callable[[], Iterable[Any]] | None = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        raise ArtifactError(
            f"this onnxruntime does not tell which nodes it leaves to the CPU: install {FIRST_VERSION} or later"
        )
    return [
        Node(node.name, ".".join(filter(None, (node.domain, node.op_type))))
        for part in tell()
        if part.ep_name != CUDA
        for node in part.get_nodes()
    ]


def computed_on_cpu(file: Path, nodes: Iterable[Node]) -> list[Node]:
    """Returns those of the nodes that compute floating-point numbers; the others are arithmetic of sizes, which may stay there.

    A node that the file does not name, or whose type it does not state, counts as one of them.
    """
    with file.open("rb") as opened:
        floats = nodes_of_floats(memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)))
    return [node for node in nodes if node.operator not in OF_SIZES and floats.get(node.name) is not False]


def fallback(file: Path, nodes: list[Node], said: str) -> ArtifactError:
    """The error of a graph of which such nodes would run on the CPU; ``said``: what onnxruntime wrote as it placed them."""
    without = {match[2].rstrip(".,") for match in NO_KERNEL.finditer(said)}
    named = shortened([f"{node}{' (no CUDA kernel)' if node.name in without else ''}" for node in nodes], MOST_NAMED)
    reason = "" if without & {node.name for node in nodes} else ": it has no CUDA kernel for them in this precision"
    return ArtifactError(
        f"{file}: onnxruntime would compute {len(nodes)} of its nodes on the CPU{reason}: {named}; export it again in another "
        "precision or opset, or install a later onnxruntime-gpu"
    )
