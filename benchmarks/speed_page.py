"""The page and the plot of speed.py, from its JSON alone."""

from __future__ import annotations

from collections.abc import Sequence

from lxmert_export.benching.pages.html import bench_style
from lxmert_export.benching.pages.plots import in_words, latency_plot, setting_of, stacked, workload_plot
from lxmert_export.benching.pages.words import Facts, differs, giga, interval, share
from lxmert_export.parity.pages.overview import number, size

TRANSFORMERS = "transformers"


def page(report: Facts) -> str:
    """Returns the page: a table for each setting, one for the workload, and the contestants."""
    machine, method = report["machine"], report["method"]
    settings = list(dict.fromkeys(map(setting_of, report["results"])))
    tools = ", ".join(f"{name} {machine['tools'][name]}" for name in machine["tools"])
    lines = [
        "# Our files beside every peer",
        "",
        f"Measured by `python -m benchmarks.speed --rounds {method['rounds']} --passes {method['passes']}` on "
        f"{machine['cores']} cores of {machine['processor']}, {method['threads']} threads, {machine['date']}: Python "
        f"{machine['python']}, {tools}.",
        "",
        f"Medians of {method['rounds']} calls each, in rotation, {method['rest']:g} s of rest before each call. Speed: times as "
        f"fast as {report['contestants'][0]['name']}, by rounds (95 % interval). What the rows are, and how it is measured: "
        "[docs/bench.md](../docs/bench.md).",
        "",
        "![Latency and questions a second](speed.svg)",
        "",
        *_ratios(report, settings),
        "",
        *(line for setting in settings for line in (*_at(report, setting), "")),
        *_workload(report),
        "",
        *_contestants(report),
        "",
        *(f"- {one['name']}: {setting}" for one in report["contestants"] for setting in one["settings"]),
        *(f"- {note}" for note in report["notes"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def plot(report: Facts) -> str:
    """Returns the plot: latency at each setting, then the workload."""
    settings = list(dict.fromkeys(map(setting_of, report["results"])))
    plots = [*(latency_plot(report, setting) for setting in settings), workload_plot(report)]
    return stacked("Latency, and questions of the workload a second", plots).file(bench_style())


def _ratios(report: Facts, settings: Sequence[Sequence[int]]) -> list[str]:
    """Each artifact beside the best fp32 peer and beside transformers, and on the workload: times as fast, of medians."""
    named = {one["name"]: one for one in report["contestants"]}
    ran = {result["contestant"]: result["questions_a_second"]["median"] for result in report["workload"]["results"]}
    baseline = report["workload"]["baseline"]
    medians = [
        {r["contestant"]: r["latency_ms"]["p50"] for r in report["results"] if setting_of(r) == tuple(setting)}
        for setting in settings
    ]
    best = [
        min((name for name in times if _is_fp32_peer(named[name])), key=lambda name, times=times: times[name])  # type: ignore[misc]
        for times in medians
    ]
    against = [
        f"{in_words(setting)}: of {name}, the best fp32 peer" for setting, name in zip(settings, best, strict=True)
    ]
    if TRANSFORMERS in named:
        against += [f"{in_words(setting)}: of {TRANSFORMERS}" for setting in settings]
    lines = [
        f"| times as fast, of medians | {' | '.join(against)} | workload: of {baseline} |",
        "|---" * (len(against) + 2) + "|",
    ]
    for name in (name for name, one in named.items() if one["kind"] == "artifact"):
        ratios = [times[other] / times[name] for times, other in zip(medians, best, strict=True)]
        if TRANSFORMERS in named:
            ratios += [times[TRANSFORMERS] / times[name] for times in medians]
        cells = [*ratios, ran[name] / ran[baseline]]
        lines.append(f"| {name}, {named[name]['precision']} | {' | '.join(f'{ratio:.2f}' for ratio in cells)} |")
    return lines


def _is_fp32_peer(contestant: Facts) -> bool:
    return bool(contestant["kind"] == "peer" and contestant["precision"] == "fp32")


def _at(report: Facts, setting: Sequence[int]) -> list[str]:
    results = [result for result in report["results"] if setting_of(result) == tuple(setting)]
    precisions = {one["name"]: one["precision"] for one in report["contestants"]}
    return [
        f"| {in_words(setting)} | p50 ms | p95 ms | spread | rows/s | speed | GFLOP | of matmul | differs by |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {result['contestant']}, {precisions[result['contestant']]} | {number(result['latency_ms']['p50'])} | "
            f"{number(result['latency_ms']['p95'])} | {result['latency_ms']['spread']:.0%} | {number(result['rows_a_second'])} | "
            f"{interval(result['speed'])} | {giga(result['operations'])} | {share(result['matmul_share'])} | "
            f"{differs(result['agreement'])} |"
            for result in results
        ),
    ]


def _workload(report: Facts) -> list[str]:
    ran = report["workload"]
    return [
        f"| workload: {ran['questions']:,} questions of {ran['tokens']:,} tokens, {ran['images']:,} images | batches | "
        f"questions/s | speed, of {ran['baseline']} | tokens with padding | differs by |",
        "|---|---|---|---|---|---|",
        *(
            f"| {result['contestant']} | {result['plan']} | {number(result['questions_a_second']['median'])} | "
            f"{interval(result['speed'])} | {result['padded_tokens']:,} | {differs(result['agreement'])} |"
            for result in ran["results"]
        ),
    ]


def _contestants(report: Facts) -> list[str]:
    return [
        "| contestant | runtime | start-up s | peak memory | files |",
        "|---|---|---|---|---|",
        *(
            f"| {one['name']} | {one['runtime']} | {one['startup_seconds']:.1f} | {size(one['peak_bytes'])} | "
            f"{size(one['bytes'])} |"
            for one in report["contestants"]
        ),
    ]
