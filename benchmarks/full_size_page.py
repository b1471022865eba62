"""The page of `make parity`: verdicts, scores, time and memory of every target at full size, and missed limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lxmert_export.spec.signature import TASKS

MINUTES = 20
MEBIBYTES = 6e9 / 2**20  # 6 GB
STEPS = "| task | step | wall s | CPU s | largest process, MiB | all together, MiB |"
ARTIFACTS = (
    "| task | artifact | verdict | worst score | worst pair | bytes | export, wall s | CPU s | largest process, MiB |"
)


def page(results: Mapping[str, Any]) -> str:
    """Returns the page, in Markdown."""
    runs = list(all_runs(results))
    own, others, wall = (sum(run[name] for run in runs) for name in ("cpu_seconds", "others_cpu_seconds", "seconds"))
    missed = missed_limits(results)
    unfinished = [task for task in TASKS if task not in {known["task"] for known in results["tasks"]}]
    return "\n".join(
        [
            "# Full size: every target, precision and task",
            "",
            f"Measured by `make parity` on {results['machine']}.",
            "",
            "The networks have 9/5/5 layers, are 768 wide, and have lively random weights. Each artifact is exported without",
            "its gate. Then one call of `lxmert-export parity … --checkpoint` for each task judges its artifacts: against",
            "float64, and against each other. A score is RMS error ÷ noise floor ([glossary](../docs/glossary.md)).",
            "Without a GPU an engine is built but not run, which never counts as a pass.",
            "",
            f"The run took {wall / 60:.1f} minutes of wall time and {own / 60:.1f} CPU minutes. Everything else on the machine",
            f"took {others / 60:.1f} CPU minutes meanwhile. Limits: {MINUTES} minutes in all, and 6 GB for each step.",
            *(f"Missed: {line}." for line in missed),
            *([f"Not finished yet: {', '.join(unfinished)}."] if unfinished else []),
            *(["Both limits were kept."] if not missed and not unfinished else []),
            "",
            *table(ARTIFACTS, artifact_rows(results)),
            "",
            "*Largest process* is its peak memory as the kernel counts it, mapped files included. *All together* is the peak",
            "memory of all processes, sampled; shared pages count once.",
            "",
            *table(STEPS, step_rows(results)),
            "",
            *(f"- {task['task']}: {task['summary']}" for task in results["tasks"]),
            "",
            f"Published numbers: {results['published']['detail']}",
            "",
        ]
    )


def table(header: str, rows: Iterator[str]) -> list[str]:
    """Returns the lines of a table."""
    return [header, "|---" * (header.count("|") - 1) + "|", *rows]


def artifact_rows(results: Mapping[str, Any]) -> Iterator[str]:
    """Yields a row for each artifact: its verdict, its worst scores, and time and memory of its export."""
    for task in results["tasks"]:
        for artifact in task["artifacts"]:
            export = artifact["export"]
            yield (
                f"| {task['task']} | {artifact['name']} | {artifact['status']} | {score(artifact['worst_score'])} "
                f"| {score(artifact['worst_pair_score'])} | {artifact['bytes']:,} | {export['seconds']:.0f} "
                f"| {export['cpu_seconds']:.0f} | {export['peak_mib']:.0f} |"
            )


def step_rows(results: Mapping[str, Any]) -> Iterator[str]:
    """Yields a row for each other step of a task: time and memory."""
    for task in results["tasks"]:
        count = len(task["artifacts"])
        for step, run in (
            ("writing a checkpoint", task["checkpoint"]),
            (f"judging {count} artifacts, {task['cells']} cells", task["judging"]),
        ):
            yield (
                f"| {task['task']} | {step} | {run['seconds']:.0f} | {run['cpu_seconds']:.0f} | {run['peak_mib']:.0f} "
                f"| {run['together_mib']:.0f} |"
            )


def score(value: float | None) -> str:
    """Formats a score; a dash if nothing was compared."""
    return "-" if value is None else f"{value:.2f}"


def missed_limits(results: Mapping[str, Any]) -> list[str]:
    """Returns a line for each limit that was missed, and by how much."""
    minutes = sum(run["seconds"] for run in all_runs(results)) / 60
    lines = [f"{minutes:.1f} minutes instead of {MINUTES}"] if minutes > MINUTES else []
    return lines + [
        f"{task['task']}: {name} took {step['together_mib']:.0f} MiB instead of {MEBIBYTES:.0f}"
        for task in results["tasks"]
        for name, step in steps_of(task)
        if step["together_mib"] > MEBIBYTES
    ]


def all_runs(results: Mapping[str, Any]) -> Iterator[Mapping[str, float]]:
    """Yields time and memory of every step."""
    return (step for task in results["tasks"] for _, step in steps_of(task))


def steps_of(task: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yields the name, and time and memory, of each step of a task."""
    yield "checkpoint", task["checkpoint"]
    for artifact in task["artifacts"]:
        yield artifact["name"], artifact["export"]
    yield "judging", task["judging"]
