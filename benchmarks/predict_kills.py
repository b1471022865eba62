"""Kills `lxmert-export predict` at random moments, and fills its disk; the same command then goes on. Nothing is lost or twice.

Writes benchmarks/predict_kills.json and .md. Run: python -m benchmarks.predict_kills (10 minutes)
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import machine
from benchmarks.trust.attempts import attempt
from benchmarks.trust.full_disks import PAGE, disk, prepare
from benchmarks.trust.fuzz import commit
from benchmarks.trust.writers import Writer
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import open_artifact
from lxmert_export.files.atomic_files import replace_files
from parity_tests.predicting.question_set import write_set

HERE = Path(__file__).parent
KILLS, DISKS = 50, 24
SHARD = 16  # questions: the more shards, the more moments between two of them
OUTPUT, STATE = "answers.jsonl", ".answers.jsonl.predicting"
ARTIFACT, FEATURES, QUESTIONS = "artifact", "val2014_obj36.tsv", "questions.json"
LARGEST = 2048  # pages of a disk
SEED = 19


def ask(sources: Path, place: Path) -> None:
    """Answers all questions into a directory, in shards that are smaller than usual."""
    from lxmert_export.cli.main import main
    from lxmert_export.predicting import plan

    plan.QUESTIONS, plan.LOOKS = SHARD, SHARD
    given = {"--features": FEATURES, "--questions": QUESTIONS}
    words = [word for flag, name in given.items() for word in (flag, str(sources / name))]
    sys.argv = ["lxmert-export", "predict", str(sources / ARTIFACT), *words, "-o", str(place / OUTPUT)]
    main()


ASK = Writer(call=ask)


def make_sources(sources: Path, questions: int, artifact: Path | None) -> None:
    """Makes what is read: the built-in checkpoint in ONNX, unless an artifact is given, and random features of its width."""
    if artifact is None:
        export("onnx", "demo", sources / ARTIFACT, task="question-answering", parity=False)
    else:
        shutil.copytree(artifact, sources / ARTIFACT)
    width = open_artifact(sources / ARTIFACT).manifest.config.visual_feat_dim
    write_set(sources, questions=questions, pictures=questions // 4, width=width)
    prepare(ASK, sources)


def kills(sources: Path, count: int) -> dict[str, Any]:
    """Kills runs until ``count`` were killed; each output is finished by the same command, killed again and again."""
    generator = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-kills-") as place:
        whole = attempt(ASK, sources, Path(place))
        undisturbed = (Path(place) / OUTPUT).read_bytes()
        assert whole.code == 0, whole.said
    rows: list[dict[str, Any]] = []
    while sum(row["kills"] for row in rows) < count:
        left = count - sum(row["kills"] for row in rows)
        with tempfile.TemporaryDirectory(prefix="lxmert-export-kills-") as place:
            rows.append(finished(sources, Path(place), undisturbed, generator, whole.seconds, left))
        print(f"{sum(row['kills'] for row in rows)} kills: {rows[-1]}", flush=True)
    return {
        "kills": sum(row["kills"] for row in rows), "outputs": len(rows), "questions": len(asked_in(sources)),
        **{name: sum(row[name] for row in rows) for name in ("lost", "twice", "other_bytes", "left_behind", "partly_there")},
        "shards": len(shards_of(sources)), "kept": [kept for row in rows for kept in row["kept"]],
        "findings": [row for row in rows if row["fault"]],
    }  # fmt: skip


def finished(
    sources: Path, place: Path, undisturbed: bytes, generator: np.random.Generator, seconds: float, most: int
) -> dict[str, Any]:
    """Gives the same command until it is done, killing it at random moments at most ``most`` times; tells what came of it."""
    killed, kept, partly = 0, [], 0
    while True:
        last = killed == most
        ended = attempt(ASK, sources, place, kill_after=None if last else float(generator.uniform(0, seconds)))
        if ended.code != -signal.SIGKILL:
            break
        killed += 1
        kept.append(len(list(place.glob(f"{STATE}/part-??????"))))
        output = place / OUTPUT
        partly += output.exists() and output.read_bytes() != undisturbed
    done = ended.code == 0 or (ended.code == 1 and "exists already" in ended.said)  # it was killed when all was done
    found = compared(sources, place, undisturbed)
    fault = None if done and not any(found.values()) and not partly else f"ended with {ended.code}: {ended.said[-300:]}"
    return {"kills": killed, "kept": kept, "partly_there": partly, **found, "fault": fault}


def compared(sources: Path, place: Path, undisturbed: bytes) -> dict[str, int]:
    """Compares a finished output with the questions and with an undisturbed run's."""
    output = place / OUTPUT
    content = output.read_bytes() if output.exists() else b""
    found = Counter(json.loads(line)["question_id"] for line in content.splitlines())
    asked = asked_in(sources)
    return {
        "lost": len(asked - set(found)), "twice": sum(count - 1 for count in found.values()),
        "other_bytes": int(content != undisturbed),
        "left_behind": len([path for path in place.iterdir() if path.name.startswith(".")]),
    }  # fmt: skip


def disks(sources: Path, count: int) -> dict[str, Any]:
    """Runs on disks that are too small, each with a little more room; then makes room, and gives the same command again."""
    with tempfile.TemporaryDirectory(prefix="lxmert-export-kills-") as place:
        assert attempt(ASK, sources, Path(place)).code == 0
        undisturbed = (Path(place) / OUTPUT).read_bytes()
    needed = len(undisturbed) // PAGE * 2 + len(shards_of(sources)) * 2 + 8  # pages: parts, the output, and directories
    rows = []
    for number in range(count):
        with disk(LARGEST) as place:
            (place / "in the way").write_bytes(bytes((LARGEST - 1 - needed * number // count) * PAGE))
            ended = attempt(ASK, sources, place)
            one_line = ended.code == 0 or (ended.code == 1 and len(ended.said.strip().splitlines()) == 1)
            (place / "in the way").unlink()
            again = attempt(ASK, sources, place) if ended.code else ended
            found = compared(sources, place, undisturbed)
            sound = one_line and again.code == 0 and not any(found.values())
            rows.append({"code": ended.code, **found, "fault": None if sound else f"{ended} {again}"[:600]})
    return {
        "disks": count, "full": sum(row["code"] == 1 for row in rows),
        **{name: sum(row[name] for row in rows) for name in ("lost", "twice", "other_bytes", "left_behind")},
        "findings": [row for row in rows if row["fault"]],
    }  # fmt: skip


def asked_in(sources: Path) -> set[int]:
    """The ids of all questions."""
    content = json.loads((sources / QUESTIONS).read_text(encoding="utf-8"))
    return {row["question_id"] for row in content["questions"]}


def shards_of(sources: Path) -> range:
    """The numbers of the shards."""
    from lxmert_export.data.questions.reading import read_questions
    from lxmert_export.predicting import plan

    plan.QUESTIONS, plan.LOOKS = SHARD, SHARD
    return range(len(plan.Plan(read_questions(sources / QUESTIONS).questions)))


def lines_of(results: Mapping[str, Any]) -> Iterator[str]:
    """The page."""
    killed, full = results["kills"], results["disks"]
    yield "# `predict`, killed at random moments and on full disks\n"
    yield f"Measured by `python -m benchmarks.predict_kills` on {results['machine']}, at {results['commit']}.\n"
    yield (
        f"{killed['questions']} questions in {killed['shards']} shards, answered by the built-in checkpoint. A run is killed "
        "(SIGKILL) at a moment drawn from the whole time that it takes; the same command is given again, and killed again, until "
        "it is done.\n"
    )
    yield "| | kills | full disks |\n|---|---|---|"
    yield f"| disturbed runs | {killed['kills']} | {full['full']} |"
    yield f"| outputs | {killed['outputs']} | {full['disks']} |"
    for name, words in {
        "lost": "questions lost", "twice": "questions answered twice", "other_bytes": "outputs of other bytes",
        "left_behind": "hidden files left behind",
    }.items():  # fmt: skip
        yield f"| {words} | {killed[name]} | {full[name]} |"
    yield f"| outputs that were there in part | {killed['partly_there']} | |"
    kept = killed["kept"]
    yield (
        f"\nShards that a killed run had kept: {min(kept)} to {max(kept)} of {killed['shards']}, in "
        f"{sum(k > 0 for k in kept)} kills at least one. A full disk is one line, exit code 1, and what was answered is kept."
    )


def main() -> None:
    """Runs both trials, and writes the files; exits with an error if there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--disks", type=int, default=DISKS)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--artifact", type=Path, help="default: the built-in checkpoint in ONNX")
    parser.add_argument("--output", type=Path, default=HERE, help="where predict_kills.json and .md are written")
    chosen = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lxmert-export-sources-") as directory:
        sources = Path(directory)
        make_sources(sources, chosen.questions, chosen.artifact)
        results: dict[str, Any] = {
            "machine": machine(("onnxruntime", "numpy")), "commit": commit(), "kills": kills(sources, chosen.kills),
            "disks": disks(sources, chosen.disks),
        }  # fmt: skip
    results["seconds"] = round(time.perf_counter() - began)
    texts = {
        "predict_kills.json": json.dumps(results, indent=1) + "\n",
        "predict_kills.md": "\n".join(lines_of(results)) + "\n",
    }
    replace_files(chosen.output, {name: text.encode() for name, text in texts.items()})
    if findings := results["kills"]["findings"] + results["disks"]["findings"]:
        sys.exit(f"findings: {json.dumps(findings, indent=1)[:5000]}")


if __name__ == "__main__":
    main()
