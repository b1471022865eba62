"""Measures how large the values of an fp16 graph become. The graph is run in float32, where nothing overflows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.graphs.fp16_linter import AUTO_ISLANDS, LARGEST_HALF, Finding, lint_fp16, module_path, worst_first
from lxmert_export.graphs.onnx_decomposition import load_decomposed
from lxmert_export.graphs.onnx_rounding import HALF_TYPES
from lxmert_export.graphs.onnx_saving import save_streamed
from lxmert_export.graphs.onnx_types import MOVES, computes
from lxmert_export.runners.onnx.emulator import widen
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.onnx.session import open_session

# Real inputs may give larger values than these, so a value above a quarter of fp16's range is a warning.
NEAR = LARGEST_HALF / 4
PROBED_FILE = "probed.onnx"
Batches = Iterable[Mapping[str, NDArray[np.generic]]]


def lint_artifact(
    artifact: Artifact, *, batches: Batches | None = None, originals: Mapping[str, NDArray[Any]] | None = None
) -> list[Finding]:
    """Returns every finding about an fp16 ONNX artifact, worst first: structure, weights and ranges of values.

    Ranges are measured on ``batches``, by default on drawn sample inputs. ``originals`` are the weights before they became
    fp16, by initializer name.
    """
    path = artifact.file(ONNX_FILE)
    if batches is None:
        batches = [batch for family in artifact.drawn_inputs().families for batch in family.batches]
    return worst_first([*lint_fp16(path, originals=originals), *lint_ranges(path, batches)])


def lint_ranges(path: Path, batches: Batches) -> list[Finding]:
    """Returns a finding for every node whose values exceed fp16's range, or a quarter of it, on these inputs."""
    return worst_first(list(_range_findings(largest_activations(path, batches))))


def _range_findings(largest: Mapping[str, float]) -> Iterator[Finding]:
    for node, figure in largest.items():
        if figure > NEAR or np.isnan(figure):
            beyond = not figure <= LARGEST_HALF  # also true for NaN
            share = "beyond" if beyond else f"{figure / LARGEST_HALF:.0%} of"
            seen = f"reaches {figure:.4g}, {share} fp16's {LARGEST_HALF:.0f}"
            yield Finding("error" if beyond else "warning", "activation-overflow" if beyond else "activation-near-range",
                          node, module_path(node), seen, figure, AUTO_ISLANDS)  # fmt: skip


def largest_activations(path: Path, batches: Batches, *, of_all: bool = False) -> dict[str, float]:
    """Returns the largest magnitude that each node computes in fp16, by node name; NaN if a value is NaN.

    With ``of_all``, nodes that compute in float32 are included. Operators that only move values, such as Reshape, are left
    out: another node has computed their values.
    """
    with tempfile.TemporaryDirectory(prefix="lxmert-export-ranges-") as directory:
        file = Path(directory) / PROBED_FILE
        probes = _write_probed(path, file, of_all)
        session = open_session(file, (CPU,), optimize=False)
        taken = {value.name for value in session.get_inputs()}
        largest = dict.fromkeys(probes.values(), 0.0)
        for batch in batches:
            given = {name: _wide(array) for name, array in batch.items() if name in taken}
            for node, value in zip(probes.values(), session.run(list(probes), given), strict=True):
                largest[node] = float(np.maximum(largest[node], value))
    return largest


def _wide(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _write_probed(source: Path, target: Path, of_all: bool) -> dict[str, str]:
    """Writes the graph in float32, with the largest magnitude of each fp16 value as an added output.

    Returns the node's name by the name of the added output.
    """
    model = load_decomposed(source)
    graph, probes = model.graph, {}
    computed = [(n, value) for n, value in widen(graph, HALF_TYPES["fp16"]) if n.op_type not in MOVES]
    if of_all:
        computed = [(n, value) for n in graph if computes(n) for value in n.outputs]
    for number, (node, value) in enumerate(computed):
        absolute = ir.node("Abs", [value])
        most = ir.node("ReduceMax", absolute.outputs, {"keepdims": 0}, name=f"probe/{number}")
        for added in (absolute, most):
            added.outputs[0].dtype = ir.DataType.FLOAT
        most.outputs[0].name, most.outputs[0].shape = f"probe/{number}", ir.Shape([])
        graph.extend([absolute, most])
        graph.outputs.append(most.outputs[0])
        probes[f"probe/{number}"] = node.name or node.op_type
    save_streamed(model, target, f"{target.name}.data")
    return probes
