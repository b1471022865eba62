"""The Markdown page of a check: which steps were run, whether outputs are right, and how fast the contestants are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu.contestants import COMPILED, COMPILED_GRAPH, EAGER
from benchmarks.gpu.floors import Cost, Rates
from benchmarks.measuring import spread

Steps = Mapping[str, Mapping[str, Any]]
WITHOUT, WITH = "without kept kernels", "with kept kernels"
PEERS = (EAGER, COMPILED, COMPILED_GRAPH)


def page(values: Mapping[str, Any]) -> str:
    """Returns the whole page."""
    steps: Steps = values["steps"]
    parts = [_head(values), _executed(steps), _rates(steps), _parity(steps), _engines(values, steps), _timing(steps)]
    return "\n".join("\n".join(lines) for lines in parts)


def _head(values: Mapping[str, Any]) -> list[str]:
    return [
        f"# {values['gpu']}",
        "",
        f"Measured by `python -m benchmarks.gpu.check` (`make gpu`) on {values['machine']}.",
        "",
        f"{values['network']}, task {values['task']}, lively random weights; 20 tokens, 36 objects.",
        *(f"{line}." for line in values["missing"]),
        "",
    ]


def _executed(steps: Steps) -> list[str]:
    rows = [
        f"| {name} | {step['status']} | {step['seconds']:.0f} | {_cell(step.get('reason', ''))} |"
        for name, step in steps.items()
    ]
    return [
        "## Steps that were run",
        "",
        "Each step ran in its own process. This page makes no claim about steps that are not in this table.",
        "",
        "| step | status | seconds | reason |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _rates(steps: Steps) -> list[str]:
    rates = _given(steps, "device")
    if rates is None:
        return []
    flops = ", ".join(f"{flops / 1e12:.1f} {precision}" for precision, flops in rates["flops_per_second"].items())
    return [
        "## Rates of the device",
        "",
        f"A large copy moves {rates['bytes_per_second'] / 1e9:,.0f} GB a second (read and written). Products of large matrices",
        f"reach, in 10¹² operations a second: {flops}. TF32 is off.",
        "",
    ]


def _parity(steps: Steps) -> list[str]:
    judged = {
        f"{form}{told}": found
        for kind, told in (("parity", ""), ("tf32", " in TF32"), ("engine", " as TensorRT engine"))
        for form, found in _of_kind(steps, kind)
    }
    lines = ["## Are the outputs right", ""]
    if not judged:
        return [*lines, "Nothing has been judged. The table above has the reason.", ""]
    tests = _given(steps, "tests")
    lines += [f"Tests that need a GPU (`pytest -m gpu`): {tests['summary']}.", ""] if tests else []
    return lines + _verdicts(judged) + _beside_prediction(judged)


def _verdicts(judged: Steps) -> list[str]:
    lines = [
        "Every family of inputs is compared with float64, and LXMERT's laws are tried. A score is RMS error ÷ noise floor; above",
        "8 fails. Each output is shown on its worst inputs. fp32 is computed without TF32, but for the row that says so.",
        "",
        "| file | verdict | output | inputs | score | error, RMS | trials of laws | families not run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in judged.items():
        verdict, not_run = "passed" if found["passed"] else "FAILED", ", ".join(found["not_run"]) or "none"
        lines += [
            f"| {name} | {verdict} | {cell['output']} | {cell['family']} | {_number(cell['score'], '.2f')} "
            f"| {_number(cell['error_rms'], '.2e')} | {found['laws']} | {not_run} |"
            for cell in found["worst"]
        ]
    return [*lines, ""]


def _beside_prediction(judged: Steps) -> list[str]:
    rows = [
        f"| {name} | {row['output']} | {row['family']} | {_number(row['predicted'], '.2e')} "
        f"| {_number(row['measured'], '.2e')} | {_number(row['ratio'], '.2f')} | {_cell(row['status'])} |"
        for name, found in judged.items()
        for row in found["predictions"]
    ]
    if not rows:
        return []
    return [
        "The error that the emulator predicted on a CPU, and the error measured on this GPU, on the emulator's worst inputs:",
        "",
        "| file | output | inputs | predicted, RMS | measured, RMS | measured ÷ predicted | the prediction is |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _engines(values: Mapping[str, Any], steps: Steps) -> list[str]:
    lines = ["## TensorRT", ""]
    if values["no_engines"] is not None:
        return [*lines, f"No engine was built or run: {values['no_engines']}.", ""]
    judged = dict(_of_kind(steps, "engine"))
    lines += [
        f"`--target {values['target']}`, with a profile for each batch (min:opt:max): {', '.join(values['batch_profiles'])}.",
        "",
        "| engine | build, s | bytes | engine ÷ weights | load to first outputs, s | the same with kept kernels, s |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in _of_kind(steps, "build"):
        first = judged.get(name, {}).get("seconds_to_first_call", {})
        lines.append(
            f"| {name} | {found['seconds']:.1f} | {found['engine_bytes']:,} "
            f"| {found['engine_bytes'] / found['weight_bytes']:.3f}× | {_number(first.get(WITHOUT), '.2f')} "
            f"| {_number(first.get(WITH), '.2f')} |"
        )
    return [*lines, ""]


def _timing(steps: Steps) -> list[str]:
    lines = [
        "## How fast they are",
        "",
        "Inputs and outputs stay on the device. All contestants take turns in one process and one thread.",
        "",
        "- p50 and p99: times of single calls, each waited for; in brackets the least and the largest median of a round.",
        "- Samples a second: in bursts of calls, median (least to largest). onnxruntime waits for each call of a burst.",
        "- Copy and matmul floor ÷ p50: 100 % would be the time to move the call's bytes once, or to compute its products.",
        "- Times as fast: p50 of eager, compiled, and compiled PyTorch with CUDA graphs ÷ p50.",
        "- Kernels: as the profiler saw them in one call, and copies behind +.",
        "",
        "| precision | batch | | p50, ms | p99, ms | samples a second | copy floor | matmul floor | times as fast | kernels |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in _of_kind(steps, "timing"):
        lines += _contestants(name, found, _given(steps, "device"))
    return [*lines, ""]


def _contestants(name: str, found: Mapping[str, Any], rates: Mapping[str, Any] | None) -> Iterator[str]:
    precision, batch = name.split("/")
    timed = found["contestants"]
    for who, times in timed.items():
        medians, p50 = times["round_medians_ms"], times["p50_ms"]
        shares = ["-", "-"]
        if rates is not None:
            cost, device = Cost(**found["cost"]), Rates(**rates)
            floors = (cost.bytes / device.bytes_per_second, cost.flops / device.flops_per_second[precision])
            shares = [f"{100_000 * floor / p50:.0f} %" for floor in floors]
        ratios = ", ".join(f"{timed[peer]['p50_ms'] / p50:.2f}" if peer in timed else "-" for peer in PEERS)
        counts = (found.get("kernels") or {}).get(who)
        kernels = f"{counts['kernels']} + {counts['copies']}" if counts else "-"
        yield (
            f"| {precision} | {batch} | {who} | {p50:.3f} ({min(medians):.3f} to {max(medians):.3f}) "
            f"| {times['p99_ms']:.3f} | {spread(times['samples_per_second'], 0)} | {shares[0]} | {shares[1]} | {ratios} "
            f"| {kernels} |"
        )
    for who, reason in found["failed"].items():
        yield f"| {precision} | {batch} | {who} | not timed: {_cell(reason)} | | | | | | |"


def _of_kind(steps: Steps, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the results of the finished steps of a kind, by the rest of their names."""
    for name in steps:
        if name.startswith(f"{kind}/") and (found := _given(steps, name)) is not None:
            yield name.removeprefix(f"{kind}/"), found


def _given(steps: Steps, name: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = steps.get(name, {}).get("result")
    return found


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
