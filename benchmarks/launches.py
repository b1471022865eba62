"""Counts the kernels that full-size ONNX files launch on onnxruntime's CUDA provider (9/5/5 layers, 768 wide), by their graphs.

No weights are drawn and no GPU is used: a graph has the same operators whatever its weights are. Writes benchmarks/launches.json
and .md. Run: python -m benchmarks.launches
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from benchmarks.full_size_checkpoint import full_size_config
from converters.onnx.cuda.lengths import filled_sizes
from converters.to_onnx import DEFAULT_OPSETS, lean_graph
from lxmert_export.graphs.onnx_launches import LaunchCount, count_launches
from lxmert_export.model.lxmert import MODELS
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Attention, Precision, Task, task_signature

RESULTS = Path(__file__).with_suffix(".json")
PAGE = RESULTS.with_suffix(".md")
SIZES = {"batch": 1, "text": 20, "objects": 36}
# Of one kernel, on the NVIDIA H200 on which our fp16 files were measured: about 1,000 kernels in 2.41 ms with a CUDA graph.
MICROSECONDS = 2.4
# name → task, precision, how attentions are written, whether the graph is fused
FORMS: Mapping[str, tuple[Task, Precision, Attention, bool]] = {
    "fp16": ("question-answering", "fp16", "decomposed", False),
    "fp16, --attention operator": ("question-answering", "fp16", "operator", False),
    "fp16, --optimize-for cuda": ("question-answering", "fp16", "decomposed", True),
    "bf16, --optimize-for cuda": ("question-answering", "bf16", "decomposed", True),
    "fp32, --optimize-for cuda": ("question-answering", "fp32", "decomposed", True),
}


def counted(
    config: LxmertConfig, task: Task, precision: Precision, attention: Attention, *, fused: bool
) -> LaunchCount:
    """Returns the launches of a task's graph with the sizes of ``SIZES``."""
    with torch.device("meta"):
        module = MODELS[task](config).eval()
    limits = InputLimits.of(config)
    signature = task_signature(config, task, fixed=SIZES)
    filled = task_signature(config, task, fixed=filled_sizes(SIZES, precision, limits.positions)) if fused else None
    form: Attention = "operator" if fused and precision == "fp32" else attention
    model = lean_graph(
        module, signature, limits, precision=precision, opset=DEFAULT_OPSETS[form],
        attention=attention, for_cuda=fused, filled=filled,
    )  # fmt: skip
    return count_launches(onnx.shape_inference.infer_shapes(_without_weights(model)))


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """A graph whose parameters are said to lie in a file; nothing reads it."""
    for value in model.graph.initializers.values():
        if value.const_value is None:
            assert value.dtype is not None and value.shape is not None and value.name is not None
            value.const_value = ir.ExternalTensor("none", 0, 1, value.dtype, shape=value.shape, name=value.name)
    return ir.to_proto(model)


def page(results: Mapping[str, Any]) -> str:
    """Returns the page of the results."""
    lines = [
        "# Kernels that a call launches",
        "",
        "Counted in the graphs of full-size files (9/5/5 layers, 768 wide), question answering, 20 tokens, 36 objects, all axes",
        "fixed, by the table in `lxmert_export/graphs/onnx_launches.py`, which names the source of every operator that is more",
        "than one kernel.",
        "No GPU was used, and nothing was timed. The last column is the prediction for an NVIDIA H200, of "
        f"{MICROSECONDS} µs a kernel.",
        "",
        "| file | kernels a call | casts | on the CPU | predicted |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.items():
        on_cpu = ", ".join(f"{operator} {count}" for operator, count in found["on_cpu"].items()) or "nothing"
        time = f"{found['total'] * MICROSECONDS / 1000:.2f} ms"
        lines.append(f"| {name} | {found['total']:,} | {found['by_operator'].get('Cast', 0)} | {on_cpu} | {time} |")
    lines += ["", "By operator:", ""]
    for name, found in results.items():
        operators = ", ".join(f"{operator} {count}" for operator, count in found["by_operator"].items())
        lines.append(f"- **{name}**: {operators}")
    return "\n".join([*lines, "", "`python -m benchmarks.launches` writes this page.", ""])


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = {}
    for name, (task, precision, attention, fused) in FORMS.items():
        results[name] = asdict(counted(full_size_config(task), task, precision, attention, fused=fused))
        print(f"{name}: {results[name]['total']}", flush=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
