"""Reports to write and to look at: of small arrays, with everything in them that a report can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lxmert_export.parity.cells import Cell, judge, judge_pair
from lxmert_export.parity.decisions import AnswerKey, Decisions, decide
from lxmert_export.parity.divergence import Divergence, LayerDrift
from lxmert_export.parity.recording import Arithmetic, Recording
from lxmert_export.parity.report import LawNotRun, ParityReport, RunnerFacts
from lxmert_export.parity.scores import Floor
from lxmert_export.sample_inputs import Family, SampleInputs
from lxmert_export.signature import ANSWER_OUTPUT, Signature, TensorSpec

FAMILIES = ("plain", "ragged", "masked-row")
OUTPUTS = {"pooled_output": 16, ANSWER_OUTPUT: 5}
SIGNATURE = Signature("custom", (), tuple(TensorSpec(n, "float32", ("batch", w)) for n, w in OUTPUTS.items()))
SAMPLES = SampleInputs(tuple(Family(name, ()) for name in FAMILIES), ())
NOISE = 1e-6
# What no form of a report may take for its own: markup, a table's bars, what XML cannot hold.
NASTY = "odd|name </script><script>window.hacked = true</script> <!-- `x` & \x1b[31m {{report}}"


def passing_report() -> ParityReport:
    """Two sound runners: one native, one proven by the emulator beside its CPU's arithmetic."""
    recordings = {name: _computed(name) for name in ("onnx-fp32", "onnx-fp16")}
    cells = [*_judged("onnx-fp32", recordings), *_judged("onnx-fp16", recordings, "cpu-fp32-arithmetic")]
    cells += [*_judged("onnx-fp16", recordings, "emulated"), *_pair("onnx-fp32", "onnx-fp16", recordings)]
    facts = [_facts("onnx-fp32", "onnx", "fp32", 5_000_000), _facts("onnx-fp16", "onnx", "fp16", 2_500_000)]
    return ParityReport(tuple(cells), runners=tuple(facts), decisions=(_decided("onnx-fp32", 0.0),))


def full_report() -> ParityReport:
    """A faulty runner among sound ones, structural faults, laws, answers turned round, and runners that were not judged."""
    recordings = {name: _computed(name) for name in ("onnx-fp32", "tflite-fp32")}
    recordings["faulty"] = _computed("faulty", noise=3e-3)
    del recordings["faulty"]["plain", "pooled_output"]
    recordings["faulty"]["ragged", "pooled_output"][0][0, 0] = np.nan
    cells = [cell for name in recordings for cell in _judged(name, recordings)]
    cells += [*_pair("onnx-fp32", "tflite-fp32", recordings), *_pair("onnx-fp32", "faulty", recordings)]
    cells += [*_pair("tflite-fp32", "faulty", recordings)]
    cells += _judged("onnx-fp32 second", recordings, of="onnx-fp32", against="onnx-fp32", kind="signature")
    cells += [_law("onnx-fp32", "padding invariance", 0.7), _law("faulty", "fully masked row", 812.0)]
    return ParityReport(
        tuple(cells),
        families_not_run=("held-out",),
        notes=(f"a note: {NASTY}",),
        decisions=(_decided("onnx-fp32", 0.0), _decided("faulty", 2.0)),
        not_run={"onnx-fp32": (), "tflite-fp32": ("held-out",)},
        runners=(
            _facts("onnx-fp32", "onnx", "fp32", 5_000_000),
            _facts("tflite-fp32", "tflite", "fp32", 5_100_000),
            _facts("faulty", "onnx", "fp32", 5_000_000),
            RunnerFacts("engine", "artifact", "tensorrt", "fp16", "built-not-run", "no GPU", bytes=9_000_000),
            RunnerFacts(NASTY, "artifact", "tensorflow", "fp32", "skipped", f"no TensorFlow: {NASTY}"),
        ),
        laws_not_run=(LawNotRun("tflite-fp32", "thread counts", "one thread alone"),),
        required=("tensorrt",),
        regressions=("onnx-fp32, pooled_output: score 1.10, the baseline's 0.50",),
        divergences=(_divergence("faulty"),),
        provenance={"tool": {"version": "0.1.0"}, "threads": 1, "providers": ["CPU"], "files": [{"name": NASTY}]},
    )


def unproven_report() -> ParityReport:
    """Half precision for which nothing speaks but a CPU's float32 arithmetic."""
    report = passing_report()
    cells = tuple(cell for cell in report.cells if cell.arithmetic != "emulated")
    return replace(report, cells=cells)


def nothing_compared() -> ParityReport:
    """All that was named is built and not run, or skipped."""
    facts = full_report().runners[3:]
    return ParityReport((), runners=facts)


def _reference() -> Recording:
    generator = np.random.default_rng(0)
    return {(family, output): [generator.normal(0, 1, (16, width)).astype(np.float64)]
            for family in FAMILIES for output, width in OUTPUTS.items()}  # fmt: skip


def _computed(name: str, noise: float = NOISE) -> Recording:
    generator = np.random.default_rng(len(name))
    return {
        key: [(chunk + generator.normal(0, noise, chunk.shape)).astype(np.float32) for chunk in chunks]
        for key, chunks in _reference().items()
    }


def _floors() -> Mapping[tuple[str, str], Floor]:
    return {key: Floor(NOISE, 1.0, 16, chunks[0].size) for key, chunks in _reference().items()}


def _judged(
    name: str, recordings: Mapping[str, Recording], arithmetic: Arithmetic = "native", *, of: str | None = None,
    against: str = "float64", kind: str = "reference",
) -> list[Cell]:  # fmt: skip
    found = recordings[of or name]
    return judge(
        name, found, _reference(), _floors(), SIGNATURE, arithmetic,
        precision="fp32", samples=SAMPLES, against=against, kind=kind,  # type: ignore[arg-type]
    )  # fmt: skip


def _pair(one: str, other: str, recordings: Mapping[str, Recording]) -> list[Cell]:
    both = (recordings[one], recordings[other])
    return judge_pair((one, other), both, (_floors(), _floors()), ("fp32", "fp32"), SAMPLES)


def _law(runner: str, law: str, score: float) -> Cell:
    return Cell(
        runner, f"law: {law}", "pooled_output", "plain", "native", "pass" if score <= 8 else "FAIL", None, score, 8.0,
        score * NOISE, 2 * score * NOISE, NOISE, 1.0, samples=8, values=128, kind="law",
    )  # fmt: skip


def _facts(name: str, target: str, precision: str, size: int) -> RunnerFacts:
    source = {"name": "demo", "sha256": "ab" * 32}
    return RunnerFacts(name, "artifact", target, precision, bytes=size, source=source, tools={"onnx": "1.23.2"})


def _decided(runner: str, noise: float) -> Decisions:
    generator = np.random.default_rng(3)
    scores = generator.normal(0, 1, (40, 5))
    key = AnswerKey([scores], scores.argmax(axis=1), np.arange(40) % 2, ("colours", "counts"))
    return decide(runner, "native", [(scores + generator.normal(0, noise, scores.shape))], key, NOISE)


def _divergence(artifact: str) -> Divergence:
    scores = {"embedding": 0.8, "language.0": 1.1, "language.1": 420.0, "cross.0": None, "pooler": 900.0}
    curve = tuple(
        LayerDrift(layer, score, None if score is None else score * NOISE, NOISE, 1.0)
        for layer, score in scores.items()
    )
    return Divergence(
        artifact, curve, "language.1", "activation", "language.1.feed_forward", "gelu_1", "plain", 420.0, 40, 42
    )
