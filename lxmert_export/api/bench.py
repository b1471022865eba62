"""Measuring artifacts side by side: what ``lxmert-export bench`` does, as a function.

No framework is imported here: each contestant imports its own in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lxmert_export.benching.contest import Method, run_bench
from lxmert_export.benching.contestants import artifact_contestants
from lxmert_export.benching.machine import cores
from lxmert_export.benching.peers import check_against, check_names, peers_of
from lxmert_export.benching.report import BenchReport
from lxmert_export.benching.settings import check_count, settings_of
from lxmert_export.benching.workload import check_workload, read_workload
from lxmert_export.errors import InputError, as_given
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent

ROUNDS, WARM_UP = 30, 3
# Threads spin for a while after a call, in wait for the next: OpenMP's for up to 0.2 s, by KMP_BLOCKTIME.
REST = 0.25
WORKLOAD_BATCH, PASSES = 32, 3
TIME_LIMIT = 900.0  # seconds for one answer: torch.compile takes minutes for the first
LONGEST = 7 * 24 * 3600.0  # seconds of a rest or of a time limit: systems cannot wait for any time


def bench(
    artifacts: Sequence[str | Path],
    *,
    batch: Sequence[int] | None = None,
    text: Sequence[int] | None = None,
    objects: Sequence[int] | None = None,
    against: str | Sequence[str] = (),
    checkpoint: str | Path | None = None,
    workload: str | Path | None = None,
    workload_batch: int = WORKLOAD_BATCH,
    passes: int = PASSES,
    rounds: int = ROUNDS,
    warm_up: int = WARM_UP,
    rest: float = REST,
    threads: int | None = None,
    time_limit: float = TIME_LIMIT,
    progress: Progress = silent,
) -> BenchReport:
    """Measures artifacts side by side: latency, throughput, start-up, memory, and whether all answer the same.

    Each runs in a process of its own. They are called in rotation, one call at a time, with a rest before each call. The first
    one is the yardstick: ratios and differences are to it.

    | parameter | meaning |
    |---|---|
    | ``batch``, ``text``, ``objects`` | sizes of calls, in every combination; default: 1 and 8, 20, 36, or the fixed size |
    | ``against`` | also other programs with these weights: ``transformers``, ``onnxruntime``, ``openvino``, ``nncf`` |
    | ``checkpoint`` | what the artifacts were made from; default: what the first one's manifest names |
    | ``workload`` | also answer the questions of this file, such as benchmarks/workload.json, in batches sorted by length |
    | ``workload_batch``, ``passes`` | rows of a call there, and how often all questions are answered |
    | ``rounds``, ``warm_up`` | timed calls of each contestant at each setting, and calls before them |
    | ``rest`` | seconds before each timed call |
    | ``threads`` | of every contestant; default: the machine's cores |
    | ``time_limit`` | the most seconds that a contestant may take for one answer |

    A contestant that answers something else raises no error: see the report's ``passed``. Errors: ``ArtifactError``: artifacts
    cannot be compared. ``InputError``: sizes or options that do not fit, or Windows. ``RuntimeFailed``: a contestant crashed or
    hung. ``MissingExtra``: a runtime is not installed. ``ConversionError``: transformers has no such model.
    """
    if os.name == "nt":
        raise InputError(
            "bench runs on Linux and macOS: it talks with its contestants through sockets that Windows lacks"
        )
    if not isinstance(artifacts, list | tuple) or not all(isinstance(place, str | Path) for place in artifacts):
        raise InputError(f"artifacts: takes a list of directories, such as ['a', 'b'], not {as_given(artifacts)}")
    if workload is not None and not isinstance(workload, str | Path):
        raise InputError(f"{option('workload')}: takes a path, not {as_given(workload)}")
    counts = {"rounds": rounds, "warm_up": warm_up, "workload_batch": workload_batch, "passes": passes}
    for keyword, number in {**counts, "threads": 1 if threads is None else threads}.items():
        check_count(keyword, number)
    if threads is not None and threads > cores():
        raise InputError(f"{option('threads')}: takes at most this machine's cores, {cores()}, not {threads}")
    for keyword, seconds, least in (("rest", rest, 0.0), ("time_limit", time_limit, 1.0)):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds <= LONGEST:
            raise InputError(
                f"{option(keyword)}: takes seconds, {least:g} or more and at most {LONGEST:g}, not {as_given(seconds)}"
            )
    against = (against,) if isinstance(against, str) else tuple(against)
    check_against(against)
    if checkpoint is not None and not against:
        raise InputError(f"{option('checkpoint')}: is for other programs: give {option('against')}, too")
    contestants = artifact_contestants(artifacts)
    opened = [one.artifact for one in contestants if one.artifact is not None]
    check_names(contestants, against)
    settings = settings_of(opened, batch, text, objects)
    asked = None if workload is None else read_workload(workload)
    if asked is not None:
        check_workload(asked, opened, workload_batch)
    method = Method(rounds, warm_up, rest, threads or cores(), time_limit, workload_batch, passes)
    with peers_of(opened[0], against, checkpoint, time_limit, progress) as (peers, notes):
        return run_bench(
            [*contestants, *peers], settings, opened[0].manifest, method, progress, notes=notes, workload=asked
        )
