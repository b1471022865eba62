"""Measures what `predict` costs besides computing, and writes the plan from one machine to many: benchmarks/predict_plan.md.

Run on a quiet machine, after benchmarks.predict_speed, whose questions a second it takes: python -m benchmarks.predict_plan
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine
from benchmarks.synthetic_set import PLACE, write_set
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.questions.question_set import Question
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.predicting.output_formats import WITH_PROBABILITIES
from lxmert_export.predicting.parts import Parts, kept_parts
from lxmert_export.predicting.plan import QUESTIONS, Plan, Shard
from lxmert_export.predicting.shard_runner import Answered

HERE = Path(__file__).parent
SPEED = HERE / "predict_speed.json"
SET, PICTURES, ROUNDS, CALLS = 10_000, 500, 5, 200
AN_IMAGE = 5.4  # questions
SPLITS = {"VQA test": 448_000, "100 million": 100_000_000}
MACHINES = (1, 10, 100)
GPU = 10_000  # questions a second of one GPU: a round number for the plan, not measured here
NETWORK = 1.25e9  # bytes a second of 10 Gbit/s
FLOAT16 = 36 * 2048 * 2  # bytes of a picture's features


def main() -> None:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=SET, help="of the synthetic set that is read")
    parser.add_argument("--speed", type=Path, default=SPEED, help="what benchmarks.predict_speed wrote")
    parser.add_argument("--output", type=Path, default=HERE, help="where predict_plan.json and .md are written")
    chosen = parser.parse_args()
    report = {"machine": machine(), **constants(chosen.questions), "rates": rates(chosen.speed)}
    texts = {
        "predict_plan.json": json.dumps(report, indent=1) + "\n",
        "predict_plan.md": "\n".join(page(report)) + "\n",
    }
    replace_files(chosen.output, {name: text.encode() for name, text in texts.items()})
    print(texts["predict_plan.md"])


def rates(speed: Path) -> dict[str, float]:
    """Returns the questions a second of a machine, by artifact, as predict_speed measured them."""
    rows = json.loads(speed.read_text(encoding="utf-8"))["rows"]
    return {name: statistics.median(run["rate"] for run in runs) for name, runs in rows.items()}


def constants(questions: int) -> dict[str, Any]:
    """Measures reading, writing, merging and Ray's calls, all without an artifact."""
    folder = write_set(PLACE, questions)
    asked = read_questions(folder / "questions.json").questions
    plan = Plan(asked)
    shards = [plan.shard(number) for number in range(len(plan))]
    answered = [answers_to(shard) for shard in shards]
    with open_features(folder / "val2014_obj36.tsv") as source:
        chosen = source.ids[:: max(len(source.ids) // PICTURES, 1)]
        reading = median_of(lambda: [source.read(picture) for picture in chosen]) / len(chosen)
        size = (folder / "val2014_obj36.tsv").stat().st_size / len(source.ids)
    writing, merging = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=PLACE) as place, kept_parts(
            Path(place) / "answers.jsonl", plan, {}, overwrite=False
        ) as parts:  # fmt: skip
            writing.append(seconds_of(partial(keep_all, parts, answered)) / len(answered))
            merging.append(seconds_of(partial(count_records, parts)) / len(answered))
    return {
        "read_seconds": reading, "picture_bytes": size, "write_seconds": statistics.median(writing),
        "merge_seconds": statistics.median(merging), "shards": len(shards), "ray_seconds": ray_seconds(shards[0], answered[0]),
        "sent_bytes": statistics.mean(len(pickle.dumps(shard)) for shard in shards),
        "returned_bytes": statistics.mean(len(pickle.dumps(one)) for one in answered),
    }  # fmt: skip


def keep_all(parts: Parts, answered: Sequence[Answered]) -> None:
    """Writes all shards."""
    for one in answered:
        parts.keep(one)


def count_records(parts: Parts) -> int:
    """Reads all records in order."""
    return sum(1 for _ in parts.in_order())


def answers_to(shard: Shard) -> Answered:
    """Records as long as real ones: five answers with probabilities."""
    ranked = [(f"answer {number}", 0.123456) for number in range(5)]
    records = [WITH_PROBABILITIES.record(_number(question), ranked) for question in shard.questions]
    return Answered(shard.number, shard.places, records, 0)


def _number(question: Question) -> int:
    return int(question.id)


def ray_seconds(shard: Shard, answered: Answered) -> float:
    """Returns how long a worker that computes nothing takes for a shard: what Ray itself costs."""
    import ray

    class Echo:
        def answer(self, given: Shard) -> Answered:
            return answered

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        actor: Any = ray.remote(Echo)
        worker = actor.remote()
        ray.get(worker.answer.remote(shard))
        return seconds_of(lambda: [ray.get(worker.answer.remote(shard)) for _ in range(CALLS)]) / CALLS
    finally:
        ray.shutdown()


def seconds_of(work: Callable[[], object]) -> float:
    """Returns the seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_of(work: Callable[[], object]) -> float:
    """Returns the median of several rounds, after one that warms up."""
    work()
    return statistics.median(seconds_of(work) for _ in range(ROUNDS))


def page(report: Mapping[str, Any]) -> Iterator[str]:
    """The page."""
    each, size = report["read_seconds"], report["picture_bytes"]
    sent, returned = report["sent_bytes"] / 1e3, report["returned_bytes"] / 1e3
    yield "# `predict` on many machines: the plan\n"
    yield f"Measured by `python -m benchmarks.predict_plan` on {report['machine']}; the rates by benchmarks.predict_speed.\n"
    yield "| constant | |\n|---|---|"
    yield f"| a picture of 36 × 2048 from a TSV | {size / 1e6:.2f} MB, {each * 1e6:.0f} µs of one thread |"
    yield f"| a shard through Ray | {report['ray_seconds'] * 1e3:.1f} ms, {sent:.0f} kB there, {returned:.0f} kB back |"
    yield f"| a shard written, flushed to the disk | {report['write_seconds'] * 1e3:.1f} ms |"
    yield f"| a shard merged | {report['merge_seconds'] * 1e3:.1f} ms |"
    yield "\nHours for a split, reading included, by the number of machines like this one:\n"
    yield f"| | {' | '.join(f'{split}, {count}' for split in SPLITS for count in MACHINES)} |"
    yield f"|---|{'---|' * len(SPLITS) * len(MACHINES)}"
    for name, rate in report["rates"].items():
        hours = (f"{questions / rate / count / 3600:.1f}" for questions in SPLITS.values() for count in MACHINES)
        yield f"| {'transformers' if name == 'baseline' else f'`{name}`'}, {rate:.1f} a second | {' | '.join(hours)} |"
    yield from saturation(report)


def saturation(report: Mapping[str, Any]) -> Iterator[str]:
    """What saturates first, second and last."""
    each, size = report["read_seconds"], report["picture_bytes"]
    fastest = max(rate for name, rate in report["rates"].items() if name != "baseline")
    pictures, wanted = fastest / AN_IMAGE, GPU / AN_IMAGE
    shards = 1 / max(report["write_seconds"] + report["merge_seconds"], report["ray_seconds"])
    yield "\nWhat saturates first:\n"
    yield (
        f"1. On CPUs, computing: at {fastest:.0f} questions a second reading takes {pictures * each * 100:.1f} % of a core and "
        f"{pictures * size / 1e6:.1f} MB a second."
    )
    yield (
        f"2. On GPUs, reading: one that answers {GPU:,} questions a second (assumed) wants {wanted:,.0f} pictures a "
        f"second, that is {wanted * each:.1f} threads and {wanted * size / 1e6:,.0f} MB a second of TSV. 10 Gbit/s carry "
        f"{NETWORK / (wanted * size):.1f} such GPUs; of float16 files, {NETWORK / (wanted * FLOAT16):.1f}."
    )
    yield (
        f"3. The command's machine, last: {shards:,.0f} shards a second, so {QUESTIONS * shards:,.0f} questions, are "
        f"{QUESTIONS * shards / fastest:,.0f} machines like this one, or {QUESTIONS * shards / GPU:.0f} such GPUs."
    )


if __name__ == "__main__":
    main()
