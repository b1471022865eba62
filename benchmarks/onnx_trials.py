"""Tries what could make the float32 file faster in onnxruntime on a CPU, at full size: each trial beside the file itself.

Writes benchmarks/onnx_trials.json and .md. Run on a quiet machine: python -m benchmarks.onnx_trials [--rounds 30]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from benchmarks.full_size_checkpoint import write_full_size
from benchmarks.measuring import machine, run_process
from benchmarks.session_settings_worker import OBJECTS, REST, TEXT, WARM, drawn
from lxmert_export.artifact.session_settings import CPU_SETTINGS, chosen_settings
from lxmert_export.benching.figures import speed_of
from lxmert_export.benching.turns import Call, Turn, take_turns

RESULTS = Path(__file__).with_suffix(".json")
PAGE = RESULTS.with_suffix(".md")
PLAIN = "the file"
# Trials by session settings alone, beside those of `--optimize-for cpu`; None: without any.
SETTINGS: Mapping[str, Mapping[str, str] | None] = {
    "the file again": {},  # what differs here is noise
    "threads that do not spin": {"session.intra_op.allow_spinning": "0"},
    "dynamic blocks": {"session.dynamic_block_base": "4"},
    "fused SkipLayerNormalization": None,
}
STACKED = "stacked rows"
BATCHES = (1, 8)
PROFILED = 10  # calls that are profiled


def main() -> None:
    """Measures, and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(("onnxruntime", "numpy")), "rounds": arguments.rounds, "batches": {}}
    with tempfile.TemporaryDirectory(prefix="lxmert-export-trials-") as place:
        for batch in BATCHES:
            found["batches"][str(batch)] = measure(Path(place), batch, arguments.rounds)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")
    print(page(found))


def measure(place: Path, batch: int, rounds: int) -> dict[str, Any]:
    """Returns the seconds of every call of each trial, made in turn, and the shares of operators of the file itself."""
    file = _exported(place, batch)
    stacked = file.with_name("stacked.onnx")
    stack_rows(file, stacked)
    own = chosen_settings(CPU_SETTINGS, onnxruntime.__version__)
    sessions = {PLAIN: _opened(file, own), STACKED: _opened(stacked, own)}
    for name, settings in SETTINGS.items():
        sessions[name] = _opened(file, {} if settings is None else {**own, **settings})
    inputs = drawn(batch)
    answers = {name: session.run(None, inputs)[0] for name, session in sessions.items()}
    for session in sessions.values():
        for _ in range(WARM):
            session.run(None, inputs)
    turns = {name: [Turn(partial(_timed, session, inputs))] * rounds for name, session in sessions.items()}
    calls = take_turns(turns, lambda: time.sleep(REST))
    seconds = {name: [call.seconds for call in made] for name, made in calls.items()}
    differs = {name: float(np.abs(answer - answers[PLAIN]).max()) for name, answer in answers.items()}
    return {"seconds": seconds, "differs": differs, "shares": shares_of(file, own, inputs)}


def _timed(session: onnxruntime.InferenceSession, inputs: Mapping[str, Any]) -> Call:
    busy, began = time.process_time(), time.perf_counter()
    session.run(None, inputs)
    return Call(time.perf_counter() - began, time.process_time() - busy)


def _exported(place: Path, batch: int) -> Path:
    checkpoint = place / "checkpoint"
    if not checkpoint.exists():
        write_full_size(checkpoint, "question-answering")
    out = place / f"batch-{batch}"
    fixed = ["--batch", str(batch), "--text", str(TEXT), "--objects", str(OBJECTS)]
    run_process(["-m", "lxmert_export.cli", "onnx", str(checkpoint), "--no-parity", *fixed, "-o", str(out)])
    return out / "model.onnx"


def stack_rows(source: Path, target: Path) -> None:
    """Multiplies the rows of both sides of a cross attention, which have the same weights, in one product.

    before    words [B, L, H] · W, objects [B, O, H] · W
    after     [B, L + O, H] · W, split again
    """
    model = ir.load(source)
    readers: dict[ir.Value, list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        if node.op_type == "MatMul" and (weight := node.inputs[1]) is not None and weight.is_initializer():
            readers[weight].append(node)
    for number, (weight, nodes) in enumerate(readers.items()):
        if len(nodes) == 2:
            _stack(model.graph, weight, nodes, f"stacked/{number}")
    model.graph.sort()
    ir.save(model, target)


def _stack(graph: ir.Graph, weight: ir.Value, nodes: list[ir.Node], name: str) -> None:
    sizes = np.array([int(node.outputs[0].shape[1]) for node in nodes], np.int64)  # type: ignore[index, arg-type]
    lengths = ir.Value(name=f"{name}/sizes", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([2]))
    lengths.const_value = ir.tensor(sizes, name=lengths.name)
    graph.register_initializer(lengths)
    joined = ir.node("Concat", [node.inputs[0] for node in nodes], {"axis": 1}, name=f"{name}/join")
    product = ir.node("MatMul", [joined.outputs[0], weight], name=f"{name}/product")
    split = ir.node("Split", [product.outputs[0], lengths], {"axis": 1}, num_outputs=2, name=f"{name}/split")
    for made, kind in ((joined, "join"), (product, "product")):
        made.outputs[0].name = f"{name}/{kind}"
    graph.insert_before(nodes[0], [joined, product, split])
    for node, part in zip(nodes, split.outputs, strict=True):
        part.name, part.type, part.shape = f"{name}/{node.name}", node.outputs[0].type, node.outputs[0].shape
        node.outputs[0].replace_all_uses_with(part)
        graph.remove(node, safe=True)


def shares_of(file: Path, settings: Mapping[str, str], inputs: Mapping[str, Any]) -> dict[str, float]:
    """Returns each operator's share of the time in onnxruntime's own profile, the largest first."""
    session = _opened(file, settings, profile=file.with_name("profile"))
    for _ in range(WARM + PROFILED):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    return {name: part / total for name, part in sorted(spent.items(), key=lambda item: -item[1])}


def _opened(file: Path, settings: Mapping[str, str], *, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def page(found: dict[str, Any]) -> str:
    """Returns the page: a table of trials, and the operators' shares."""
    lines = [
        "# What could make the float32 file faster",
        "",
        f"Measured by `python -m benchmarks.onnx_trials --rounds {found['rounds']}` on {found['machine']}.",
        "",
        f"Full-size question answering, {TEXT} tokens, {OBJECTS} objects, axes fixed, `--optimize-for cpu`; {found['rounds']}",
        "calls each, in rotation. Times as fast as the file itself: the median of neighbouring calls, and its 95 % interval.",
        "",
        "| trial | batch 1, ms | times as fast | batch 8, ms | times as fast | differs by |",
        "|---|---|---|---|---|---|",
    ]
    first = found["batches"][str(BATCHES[0])]
    for name in first["seconds"]:
        cells = [name]
        for batch in map(str, BATCHES):
            seconds = found["batches"][batch]["seconds"]
            cells += [f"{statistics.median(seconds[name]) * 1e3:.1f}", str(speed_of(seconds[PLAIN], seconds[name]))]
        lines.append(f"| {' | '.join(cells)} | {first['differs'][name]:.1e} |")
    lines += ["", "| operator | share of the time, batch 1 | batch 8 |", "|---|---|---|"]
    shares = [found["batches"][batch]["shares"] for batch in map(str, BATCHES)]
    lines += [f"| {name} | {' | '.join(f'{one.get(name, 0):.1%}' for one in shares)} |" for name in list(shares[0])[:8]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
