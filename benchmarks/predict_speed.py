"""Measures `predict` on a synthetic set, reading included, beside transformers' loop; and its memory while it runs.

Run on a quiet machine: python -m benchmarks.predict_speed [--questions 100000]. It makes full-size artifacts and the set of
benchmarks.synthetic_set, continues where it was stopped, and writes benchmarks/predict_speed.json and .md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, run_process
from benchmarks.resumable import Steps, source_key
from benchmarks.speed import FOR_CPU, INT8, write_calibration
from benchmarks.synthetic_set import PLACE, QUESTIONS, write_set
from lxmert_export import demo
from lxmert_export.artifact.manifest import TOOLS
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.graphs.int8_saturation import WEIGHT_RANGES
from lxmert_export.runners.onnx.int8_kernels import is_exact

HERE = Path(__file__).parent
SOURCES = (
    "lxmert_export",
    "converters",
    "benchmarks/predict_speed.py",
    "benchmarks/predict_baseline.py",
    "benchmarks/workload.json",
)
ARTIFACTS: Mapping[str, tuple[str, ...]] = {
    "fp32": FOR_CPU,
    "fp32 --split": (*FOR_CPU, "--split"),
    "int8 --split": (*FOR_CPU, *INT8, "--split"),
}
BASELINE, THREADS = 1_024, 2
TOKENIZER = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# The same command on Ray's workers, on this machine: what share of the local engine's rate is left.
ON_RAY = {"fp32 --split, 2 Ray workers": "fp32 --split"}
WORKERS = ("--engine", "ray", "--workers", "2", "--threads", "1")
POINTS = 20  # of the memory curve on the page


def main() -> None:
    """Runs the unfinished steps, and writes the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of the set that predict answers")
    parser.add_argument("--baseline", type=int, default=BASELINE, help="questions that transformers' loop answers")
    parser.add_argument("--runs", type=int, default=1, help="of each artifact and of the baseline, in turn")
    parser.add_argument("--artifacts", nargs="+", choices=ARTIFACTS, default=list(ARTIFACTS))
    parser.add_argument("--checkpoint", help="another checkpoint than the full-size one, such as demo, to try this out")
    parser.add_argument("--output", type=Path, default=HERE, help="where predict_speed.json and .md are written")
    parser.add_argument(
        "--state", type=Path, default=HERE.parent / "build" / "predict-speed", help="where a run continues"
    )
    chosen = parser.parse_args()
    asked = "-".join(map(str, (chosen.checkpoint, chosen.questions, chosen.baseline, chosen.runs, *chosen.artifacts)))
    steps = Steps(
        chosen.state, f"{source_key(HERE.parent, SOURCES, TOOLS)}-{asked.replace('/', '-').replace(' ', '_')}"
    )
    report = measure(steps, chosen)
    texts = {
        "predict_speed.json": json.dumps(report, indent=1) + "\n",
        "predict_speed.md": "\n".join(page(report)) + "\n",
    }
    replace_files(chosen.output, {name: text.encode() for name, text in texts.items()})
    steps.forget()
    print(texts["predict_speed.md"])


def measure(steps: Steps, chosen: argparse.Namespace) -> dict[str, Any]:
    """Makes what is missing, and measures all in turn."""
    source = steps.place / "checkpoint"
    steps.once("checkpoint", partial(make_checkpoint, source, chosen.checkpoint))
    for name in chosen.artifacts:
        steps.once(f"export-{slug(name)}", partial(export, source, steps.place, name))
    config = read_checkpoint(str(source)).config
    place = PLACE if chosen.checkpoint is None else steps.place / "synthetic"
    folder = write_set(place, chosen.questions, width=config.visual_feat_dim)
    on_ray = {name: artifact for name, artifact in ON_RAY.items() if artifact in chosen.artifacts}
    contestants: dict[str, tuple[str, Sequence[str]]] = {
        name: (name, ("--threads", str(THREADS))) for name in chosen.artifacts
    }
    contestants |= {name: (artifact, WORKERS) for name, artifact in on_ray.items()}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("baseline", *contestants)}
    for run in range(chosen.runs):
        rows["baseline"].append(steps.once(f"baseline-{run}", partial(baseline, steps.place, chosen)))
        for name, (artifact, flags) in contestants.items():
            answers = partial(predict, steps.place, artifact, flags, folder, chosen.questions)
            rows[name].append(steps.once(f"predict-{slug(name)}-{run}", answers))
            print(f"run {run + 1}, {name}: {rows[name][-1]['rate']:.1f} questions a second", flush=True)
    return {
        "machine": machine(), "questions": chosen.questions, "baseline_questions": chosen.baseline, "threads": THREADS,
        "checkpoint": chosen.checkpoint or "full size, random weights", "width": config.visual_feat_dim, "rows": rows,
    }  # fmt: skip


def make_checkpoint(place: Path, given: str | None) -> dict[str, Any]:
    """Writes the checkpoint with a tokenizer and names of answers: the built-in one's words are among those of every set."""
    if given is None:
        run_process(["-m", "benchmarks.full_size_checkpoint", str(place)])
    else:
        run_process(["-m", "lxmert_export.cli", "convert", given, "--to", "hf", "-o", str(place), "--overwrite"])
    for name in TOKENIZER:
        shutil.copy(Path(demo.__file__).parent / name, place / name)
    answers = read_checkpoint(str(place)).config.num_qa_labels
    (place / "labels.json").write_text(json.dumps([f"answer {number}" for number in range(answers)]), encoding="utf-8")
    return {}


def export(source: Path, place: Path, name: str) -> dict[str, Any]:
    """Exports one artifact."""
    calibration = place / "calibration.npz"
    if not calibration.exists():
        write_calibration(str(source), calibration)
    given = {"calibration": str(calibration), "range": "8bit" if is_exact(WEIGHT_RANGES["8bit"]) else "7bit"}
    flags = [option.format(**given) for option in ARTIFACTS[name]]
    common = [
        "onnx",
        str(source),
        "--task",
        "question-answering",
        "--no-parity",
        "--overwrite",
        "-o",
        str(place / slug(name)),
    ]
    return vars(run_process(["-m", "lxmert_export.cli", *common, *flags]))


def baseline(place: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Has transformers' loop answer."""
    printed: list[str] = []
    artifact = place / slug(chosen.artifacts[0])
    words = [str(place / "checkpoint"), str(artifact), str(chosen.baseline), str(THREADS)]
    run = run_process(["-m", "benchmarks.predict_baseline", *words], printed=printed)
    return {**json.loads(printed[0].splitlines()[-1]), "others_cpu_seconds": run.others_cpu_seconds}


def predict(place: Path, name: str, flags: Sequence[str], folder: Path, questions: int) -> dict[str, Any]:
    """Runs the command on the whole set, from its start to its end: imports, opening, indexing and reading are in its time."""
    files = ["--features", str(folder / "val2014_obj36.tsv"), "--questions", str(folder / "questions.json")]
    output = ["-o", str(place / f"{slug(name)}.json"), "--overwrite", *flags]
    curve: list[tuple[float, float]] = []
    command = ["-m", "lxmert_export.cli", "predict", str(place / slug(name)), *files, *output]
    run = run_process(command, curve=curve)
    return {**vars(run), "rate": questions / run.seconds, "curve": thinned(curve)}


def thinned(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns a few points of a curve of (second, MiB)."""
    step = max(len(curve) // POINTS, 1)
    return [(round(second, 1), round(held, 1)) for second, held in curve[::step]]


def growth(curve: Sequence[tuple[float, float]]) -> float:
    """Returns by how many MiB the memory grew after the first fifth of a run."""
    held = [point for _, point in curve]
    start = max(len(held) // 5, 1)
    return max(held[start:], default=0.0) - statistics.median(held[start : start + 3] or held[-1:])


def page(report: Mapping[str, Any]) -> Iterator[str]:
    """The page."""
    rows = report["rows"]
    base = statistics.median(row["rate"] for row in rows["baseline"])
    yield "# `predict` on a synthetic set\n"
    yield f"Measured by `python -m benchmarks.predict_speed` on {report['machine']}, with {report['threads']} threads.\n"
    yield (
        f"{report['questions']:,} questions with the lengths of benchmarks/workload.json, 5.4 about each picture of 36 objects, "
        f"{report['width']} wide, in airsplay's TSV; {report['checkpoint']}. The time is that of the whole command: starting, "
        f"indexing, reading, writing. The baseline is transformers' eager loop over {report['baseline_questions']:,} questions, "
        "32 at a time, padded to 20 tokens, which has all features in memory.\n"
    )
    yield "| | questions a second | times as fast | seconds | most memory, MiB | grew after the first fifth, MiB |"
    yield "|---|---|---|---|---|---|"
    yield f"| transformers' loop | {base:.1f} | 1.0 | | | |"
    for name, runs in rows.items():
        if name != "baseline":
            rate, seconds = (statistics.median(row[what] for row in runs) for what in ("rate", "seconds"))
            most, grew = max(row["together_mib"] for row in runs), max(growth(row["curve"]) for row in runs)
            yield f"| `{name}` | {rate:.1f} | {rate / base:.2f} | {seconds:.0f} | {most:.0f} | {grew:.0f} |"
    yield "\nMemory held by the command, MiB at the second:\n"
    for name, runs in rows.items():
        if name != "baseline":
            yield f"- `{name}`: " + ", ".join(f"{held:.0f} at {second:.0f}" for second, held in runs[-1]["curve"])


def slug(name: str) -> str:
    """A name of a directory."""
    return re.sub(r"\W+", "-", name)


if __name__ == "__main__":
    main()
