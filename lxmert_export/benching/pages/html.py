"""The report of a bench as one HTML page that needs no network, no other file and no script."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from lxmert_export.benching.pages.plots import (
    in_words,
    latency_plot,
    setting_of,
    throughput_plots,
    workload_plot,
)
from lxmert_export.benching.pages.words import QUIET, Facts, differs, figure, giga, interval, share, speed_legend
from lxmert_export.parity.pages.cards import bullets, card, cards_page, facts, note, scrolled, table
from lxmert_export.parity.pages.overview import number, size


def bench_page(report: Facts) -> str:
    """Returns the page of a report, from its JSON form alone."""
    status = "pass" if report["passed"] else "FAIL"
    word = "✓ all answer the same" if report["passed"] else "✕ other answers"
    settings = list(dict.fromkeys(map(setting_of, report["results"])))
    sections = [
        *(
            card(in_words(setting), scrolled("latency", latency_plot(report, setting).svg()), _results(report, setting))
            for setting in settings
        ),
        *(card("Throughput", scrolled("throughput", plot.svg())) for plot in throughput_plots(report)),
        *([_workload(report)] if report["workload"] else []),
        card("Contestants", _contestants(report)),
        card("Machine and method", facts(_machine(report))),
        card("What the columns hold", facts(_legend(report))),
        *([card("Notes", bullets(report["notes"]))] if report["notes"] else []),
    ]
    return cards_page(
        heading="Bench",
        title=f"Bench: {', '.join(one['name'] for one in report['contestants'])}",
        style=bench_style(),
        verdict=(status, word, report["summary"]),
        sections=sections,
    )


def bench_style() -> str:
    """Returns the style of the plots."""
    return files("lxmert_export.benching.pages").joinpath("bench.css").read_text(encoding="utf-8")


def _results(report: Facts, setting: Sequence[int]) -> str:
    columns = ("contestant", "p50 ms", "p95 ms", "p99 ms", "spread", "first call ms", "rows/s", "speed", "GFLOP",
               "of matmul", "busy cores", "differs by")  # fmt: skip
    rows = [
        (
            result["contestant"],
            *(figure(result["latency_ms"][name]) for name in ("p50", "p95", "p99")),
            f"{result['latency_ms']['spread']:.0%}", figure(result["first_call_ms"]), figure(result["rows_a_second"]),
            interval(result["speed"]),
            giga(result["operations"]),
            share(result["matmul_share"]),
            number(result["busy_cores"]), differs(result["agreement"]),
        )
        for result in report["results"]
        if setting_of(result) == tuple(setting)
    ]  # fmt: skip
    return table(f"figures at {in_words(setting)}", columns, rows)


def _workload(report: Facts) -> str:
    ran = report["workload"]
    columns = ("contestant", "batches", "questions/s", "speed", "calls", "tokens", "differs by")
    rows = [
        (
            result["contestant"], result["plan"], figure(result["questions_a_second"]["median"]),
            interval(result["speed"]), f"{result['calls']:,}", f"{result['padded_tokens']:,}",
            differs(result["agreement"]),
        )
        for result in ran["results"]
    ]  # fmt: skip
    what = (
        f"{ran['questions']:,} questions of {ran['tokens']:,} tokens about {ran['images']:,} images of {ran['objects']} "
        f"objects; speed: times as fast as {ran['baseline']}"
    )
    plot = scrolled("questions a second", workload_plot(report).svg())
    return card("Workload", note(what), plot, table("figures of the workload", columns, rows))


def _contestants(report: Facts) -> str:
    columns = ("contestant", "kind", "runtime", "precision", "start-up s", "peak memory", "files", "settings")
    rows = [
        (
            one["name"], one["kind"], one["runtime"], one["precision"], f"{one['startup_seconds']:.2f}",
            size(one["peak_bytes"]), size(one["bytes"]), "; ".join(one["settings"]) or "–",
        )
        for one in report["contestants"]
    ]  # fmt: skip
    return table("contestants", columns, rows)


def _machine(report: Facts) -> list[tuple[str, str]]:
    machine, method = report["machine"], report["method"]
    rates = [rate["operations_a_second"]["median"] / 1e9 for rate in report["matmul"]]
    return [
        ("processor", f"{machine['processor']}, {machine['cores']} cores"),
        ("its float32 matmul", f"{', '.join(f'{rate:.3g}' for rate in rates)} GFLOP/s, at each setting"),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine["tools"].items())),
        ("date", machine["date"]),
        ("threads", f"{method['threads']} for each contestant, in a process of its own"),
        ("calls", f"{method['warm_up']} to warm up, then {method['rounds']} rounds in rotation, {method['rest']:g} s of rest "
                  "before each call"),
    ]  # fmt: skip


def _legend(report: Facts) -> list[tuple[str, str]]:
    first, rounds = report["contestants"][0]["name"], report["method"]["rounds"]
    return [
        ("speed", speed_legend(first, rounds).removeprefix("speed: ")),
        (
            "spread",
            f"the distance between the quartiles ÷ the median: above {QUIET:.0%} the machine was not quiet",
        ),
        ("first call ms", "the first call at these sizes, before the warm-up: a compiler compiles then"),
        (
            "GFLOP, of matmul",
            "counted operations of a call, and their rate as a share of this machine's float32 matmul",
        ),
        ("busy cores", "CPU time of all threads ÷ time of the calls"),
        ("differs by", f"the largest difference of an output from {first}'s; WRONG: it computes something else"),
    ]
