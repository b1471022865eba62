"""Measures whole processes from outside, A and B in turn: wall seconds, and peak memory as the system counts it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_memory import MemoryWatch
from lxmert_export.artifact.manifest import tool_versions
from lxmert_export.benching.machine import processor

LAUNCHER = Path(__file__).with_name("launching.py")


@dataclass(frozen=True)
class Run:
    """One finished process, with those that it started.

    - ``seconds``: wall time. ``cpu_seconds``: user and system time.
    - ``peak_mib``: the largest resident set of one process, in MiB, memory-mapped files included.
    - ``together_mib``: the most that all processes held at once, in MiB, sampled; shared pages count once.
    - ``others_cpu_seconds``: CPU time of everything else on the machine meanwhile.
    """

    seconds: float
    peak_mib: float
    cpu_seconds: float
    together_mib: float
    others_cpu_seconds: float
    exit_code: int = 0


def run_process(
    arguments: Sequence[str],
    *,
    accepted: Sequence[int] = (0,),
    printed: list[str] | None = None,
    curve: list[tuple[float, float]] | None = None,
) -> Run:
    """Runs Python with arguments, and measures it; exits with its output if its exit code is not accepted.

    ``printed`` gets what the process printed, and its errors; ``curve`` the memory that it held: (seconds, MiB).
    """
    with tempfile.TemporaryDirectory(prefix="lxmert-export-measure-") as directory:
        usage_file = Path(directory) / "usage.json"
        launched = [sys.executable, "-I", str(LAUNCHER), str(usage_file), *arguments]
        started, busy = time.perf_counter(), busy_cpu_seconds()
        process = subprocess.Popen(launched, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        with MemoryWatch(process.pid) as memory, process.stdout as output:
            said = output.read().decode(errors="replace")
        if (exit_code := process.wait()) not in accepted:
            sys.exit(f"{' '.join(arguments)} failed:\n{said}")
        seconds, others = time.perf_counter() - started, busy_cpu_seconds() - busy
        usage = json.loads(usage_file.read_text(encoding="utf-8"))
    if printed is not None:
        printed.append(said)
    if curve is not None:
        curve += memory.curve
    peak = usage["peak_kib"] / 1024
    return Run(
        seconds=seconds,
        peak_mib=peak,
        cpu_seconds=usage["cpu_seconds"],
        together_mib=max(memory.peak_mib, peak),
        others_cpu_seconds=max(others - usage["cpu_seconds"], 0.0),
        exit_code=exit_code,
    )


def busy_cpu_seconds() -> float:
    """Returns the busy time of all processors since the machine started, and the time taken by its host ("steal")."""
    with open("/proc/stat", encoding="utf-8") as file:  # noqa: PTH123  (no path of ours)
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def in_turn(commands: Mapping[str, Sequence[str]], runs: int) -> dict[str, list[Run]]:
    """Measures A, B, A, B, …, so that a drift of the machine's speed affects all alike."""
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(runs):
        for name, arguments in commands.items():
            found[name].append(run_process(arguments))
            last = found[name][-1]
            print(f"run {number + 1}: {name}: {last.seconds:.1f} s, {last.peak_mib:.0f} MiB", flush=True)
    return found


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Formats values as median (least to largest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def machine(distributions: Sequence[str] = ("torch", "onnxruntime", "onnx", "transformers")) -> str:
    """Describes this machine and the versions of some packages, for a page of figures."""
    tools = ", ".join(f"{name} {number}" for name, number in tool_versions(distributions).items())
    return f"{os.cpu_count()} cores of {processor()}, Python {platform.python_version()}, {tools}"
