"""The page and the plot of speed.py, from its JSON alone."""

from __future__ import annotations

from collections.abc import Sequence

from lxmert_export.benching.pages.html import bench_style
from lxmert_export.benching.pages.plots import in_words, latency_plot, setting_of, stacked, workload_plot
from lxmert_export.benching.pages.words import Facts, differs, giga, interval, share
from lxmert_export.parity.pages.overview import number, size


def page(report: Facts) -> str:
    """Returns the page: a table for each setting, one for the workload, and the contestants."""
    machine, method = report["machine"], report["method"]
    settings = list(dict.fromkeys(map(setting_of, report["results"])))
    tools = ", ".join(f"{name} {machine['tools'][name]}" for name in machine["tools"])
    lines = [
        "# Our files beside every peer",
        "",
        f"Measured by `make speed` on {machine['cores']} cores of {machine['processor']}, {method['threads']} threads, "
        f"{machine['date']}: Python {machine['python']}, {tools}.",
        "",
        f"Medians of {method['rounds']} calls each, in rotation, {method['rest']:g} s of rest before each call. Speed: times as "
        f"fast as {report['contestants'][0]['name']}, by rounds (95 % interval). What the rows are, and how it is measured: "
        "[docs/bench.md](../docs/bench.md).",
        "",
        "![Latency and questions a second](speed.svg)",
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


def _at(report: Facts, setting: Sequence[int]) -> list[str]:
    results = [result for result in report["results"] if setting_of(result) == tuple(setting)]
    precisions = {one["name"]: one["precision"] for one in report["contestants"]}
    peers = {one["name"] for one in report["contestants"] if one["kind"] == "peer"}
    fp32_peers = [r for r in results if r["contestant"] in peers and precisions[r["contestant"]] == "fp32"]
    best = min(fp32_peers, key=lambda result: result["latency_ms"]["p50"])
    ratio = best["latency_ms"]["p50"] / results[0]["latency_ms"]["p50"]
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
        "",
        f"{results[0]['contestant']} is {ratio:.2f} times as fast as the best fp32 peer, {best['contestant']} (of medians).",
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
