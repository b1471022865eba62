"""A report of a bench with everything in it: three contestants, one of them wrong, two settings, a workload, a note."""

from __future__ import annotations

import numpy as np

from lxmert_export.benching.agreement import Agreement
from lxmert_export.benching.figures import interval_of, speed_of
from lxmert_export.benching.report import BenchReport, Entrant, MatmulRate, Result
from lxmert_export.benching.settings import Setting
from lxmert_export.benching.turns import Call
from lxmert_export.benching.workload import Workload
from lxmert_export.benching.workload_run import WorkloadResult, WorkloadRun

NASTY = "<script>window.hacked = true</script> & {{verdict}}"
RIGHT = Agreement("question_answering_score", 2e-5, 3e-6, 0.001)
WRONG = Agreement("question_answering_score", 4.2, 1.3, 0.001)
AGREEMENTS = {"vqa-fp32": RIGHT, NASTY: RIGHT, "wrong": WRONG}


def sample_report() -> BenchReport:
    """The report; its figures are drawn, not measured."""
    generator = np.random.default_rng(0)
    results, rates = [], []
    for batch in (1, 8):
        setting = Setting(batch, 20, 36)
        rate = MatmulRate.of(setting, generator.normal(0.03, 0.001, 20).tolist())
        rates.append(rate)
        first = (0.08 * batch**0.8 * generator.gamma(100, 0.01, 20)).tolist()
        for place, name in enumerate(AGREEMENTS):
            seconds = [one * (1 + 0.4 * place) for one in first]
            results.append(
                Result.of(
                    setting, name, [Call(one, 2 * one) for one in seconds], first, AGREEMENTS[name], first_call=0.5,
                    operations=None if place == 2 else 10_500_000_000 * batch, rate=rate,
                )
            )  # fmt: skip
    return BenchReport(
        machine={
            "date": "2026-11-27T00:00:00+00:00", "processor": "a processor", "cores": 2, "system": "x86_64, Linux",
            "python": "3.11.7", "tools": {"onnxruntime": "1.32.0"},
        },
        method={
            "rounds": 20, "warm_up": 3, "rest": 0.25, "threads": 2, "time_limit": 900.0, "workload_batch": 32, "passes": 2,
        },
        task="question-answering",
        entrants=tuple(
            Entrant(
                {
                    "name": name, "kind": "artifact", "runtime": "onnxruntime", "precision": "fp32", "bytes": 10**9,
                    "settings": ["a setting"],
                },
                1.5, 10**9,
            )
            for name in AGREEMENTS
        ),
        results=tuple(results),
        matmul=tuple(rates),
        notes=("transformers, torch.compile: not run: it needs a C++ compiler: install g++",),
        workload=_workload(),
    )  # fmt: skip


def _workload() -> WorkloadRun:
    workload = Workload(0, 864, 5.4, 36, {9: 1}, 32, 20)
    seconds = {name: [10.0 * (place + 1), 11.0 * (place + 1)] for place, name in enumerate(AGREEMENTS)}
    results = tuple(
        WorkloadResult(
            name, "batches of 32, padded to 20 tokens", 27, 17280, tuple(own), interval_of([864 / one for one in own]),
            speed_of(seconds["vqa-fp32"], own), AGREEMENTS[name],
        )
        for name, own in seconds.items()
    )  # fmt: skip
    return WorkloadRun(workload, "vqa-fp32", results)
