"""The Markdown page of a check: which steps were run, whether outputs are right, and how fast engines are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu.contestants import COMPILED, COMPILED_GRAPH, ENGINES
from benchmarks.gpu.floors import Cost, Rates, bound_by, floor_seconds
from benchmarks.measuring import spread

Steps = Mapping[str, Mapping[str, Any]]
WITHOUT, WITH = "without kept kernels", "with kept kernels"
# Each engine is compared with compiled PyTorch of the same kind: with or without a CUDA graph.
RATIOS = {
    name: peer for names in ENGINES.values() for name, peer in zip(names, (COMPILED, COMPILED_GRAPH), strict=True)
}


def page(values: Mapping[str, Any]) -> str:
    """Returns the whole page."""
    steps: Steps = values["steps"]
    parts = [_head(values), _executed(steps), _rates(steps), _parity(steps), _timing(steps)]
    return "\n".join("\n".join(lines) for lines in parts)


def _head(values: Mapping[str, Any]) -> list[str]:
    return [
        f"# Engines on {values['gpu']}",
        "",
        f"Measured by `python -m benchmarks.gpu.check` (`make gpu`) on {values['machine']}.",
        "",
        f"{values['network']}, task {values['task']}, lively random weights, `--target {values['target']}`.",
        f"Engines have a profile for each batch (min:opt:max): {', '.join(values['batch_profiles'])}.",
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
        f"reach, in 10¹² operations a second: {flops}. TF32 is off. The *least time* of a call is the larger of two times:",
        "the time to move its weights, inputs and outputs once, and the time of its matrix products.",
        "",
    ]


def _parity(steps: Steps) -> list[str]:
    judged, built = dict(_of_kind(steps, "parity")), dict(_of_kind(steps, "build"))
    lines = ["## Are the outputs right", ""]
    if not judged:
        lines += ["No engine has been run. The table above has the reason.", ""]
    else:
        lines += _verdicts(judged) + _beside_prediction(judged)
    return lines + _builds(built, judged)


def _verdicts(judged: Steps) -> list[str]:
    lines = [
        "Every family of inputs is compared with float64. A score is RMS error ÷ noise floor; above 8 fails. Each output is",
        "shown on its worst inputs.",
        "",
        "| engine | verdict | output | inputs | score | error, RMS | families not run |",
        "|---|---|---|---|---|---|---|",
    ]
    for precision, found in judged.items():
        verdict, not_run = "passed" if found["passed"] else "FAILED", ", ".join(found["not_run"]) or "none"
        lines += [
            f"| {precision} | {verdict} | {cell['output']} | {cell['family']} | {_number(cell['score'], '.2f')} "
            f"| {_number(cell['error_rms'], '.2e')} | {not_run} |"
            for cell in found["worst"]
        ]
    return [*lines, ""]


def _beside_prediction(judged: Steps) -> list[str]:
    rows = [
        f"| {precision} | {output} | {_number(row['foretold_rms'], '.2e')} | {_number(row['measured_rms'], '.2e')} "
        f"| {_number(row['measured_over_foretold'], '.2f')} | {_cell(row['status'])} |"
        for precision, found in judged.items()
        for output, row in found["beside_prediction"].items()
    ]
    return [
        "The error that the emulator predicted, and the error measured on this GPU, on the emulator's worst inputs:",
        "",
        "| engine | output | predicted, RMS | measured, RMS | ratio | the prediction is |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _builds(built: Steps, judged: Steps) -> list[str]:
    lines = [
        "| engine | build, s | bytes | engine ÷ weights | load to first outputs, s | the same with kept kernels, s |",
        "|---|---|---|---|---|---|",
    ]
    for precision, found in built.items():
        first = judged.get(precision, {}).get("seconds_to_first_call", {})
        lines.append(
            f"| {precision} | {found['seconds']:.1f} | {found['engine_bytes']:,} "
            f"| {found['engine_bytes'] / found['weight_bytes']:.3f}× | {_number(first.get(WITHOUT), '.2f')} "
            f"| {_number(first.get(WITH), '.2f')} |"
        )
    return [*lines, ""]


def _timing(steps: Steps) -> list[str]:
    lines = [
        "## How fast they are",
        "",
        "Inputs and outputs stay on the device. All contestants take turns in one process.",
        "",
        "- p50 and p99: times of single calls, each waited for; in brackets the least and the largest median of a round.",
        "- Samples a second: in bursts of calls, median (least to largest).",
        "- Least time ÷ p50: 100 % is as fast as the device can be; in brackets what the least time is due to.",
        "- Speed-up: p50 of compiled PyTorch of the same kind ÷ p50.",
        "",
        "| precision | batch | | p50, ms | p99, ms | samples a second | least time ÷ p50 | speed-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in _of_kind(steps, "timing"):
        lines += _contestants(name, found, _given(steps, "device"))
    return [*lines, ""]


def _contestants(name: str, found: Mapping[str, Any], rates: Mapping[str, Any] | None) -> Iterator[str]:
    precision, batch = name.split("/")
    timed = found["contestants"]
    for who, times in timed.items():
        share, ratio = "-", "-"
        if rates is not None:
            cost, device = Cost(**found["cost"]), Rates(**rates)
            floor = floor_seconds(cost, device, precision)
            share = f"{100_000 * floor / times['p50_ms']:.0f} % ({bound_by(cost, device, precision)})"
        if (peer := timed.get(RATIOS.get(who, ""))) is not None:
            ratio = f"{peer['p50_ms'] / times['p50_ms']:.2f}×"
        medians = times["round_medians_ms"]
        yield (
            f"| {precision} | {batch} | {who} | {times['p50_ms']:.3f} ({min(medians):.3f} to {max(medians):.3f}) "
            f"| {times['p99_ms']:.3f} | {spread(times['samples_per_second'], 0)} | {share} | {ratio} |"
        )
    for who, reason in found["failed"].items():
        yield f"| {precision} | {batch} | {who} | not timed: {_cell(reason)} | | | | |"


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
