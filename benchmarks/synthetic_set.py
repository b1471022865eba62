"""Writes a synthetic set: questions with the lengths of benchmarks/workload.json, and features of their pictures.

Run: python -m benchmarks.synthetic_set [--questions 100000]. It writes build/synthetic/QUESTIONS/questions.json, as VQA v2 is
published, and val2014_obj36.tsv, as airsplay's; 100,000 questions are about 18,519 pictures, which take 7.3 GB. The same numbers
give the same files.
"""

from __future__ import annotations

import argparse
import base64
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from lxmert_export.benching.workload import Workload, read_workload

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "build" / "synthetic"
WORKLOAD = Path(__file__).with_name("workload.json")
QUESTIONS, WIDTH = 100_000, 2048
FIRST_PICTURE, SIZE = 262_144, (640, 480)
SPECIAL_TOKENS = 2  # [CLS] and [SEP], which the lengths of the workload count
# Each is one token of BERT's vocabulary and of the built-in checkpoint's.
WORDS = "how many red green blue circle square are there is the left of what color a".split()


def main() -> None:
    """Writes both files, unless they are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    folder = write_set(PLACE, parser.parse_args().questions)
    for file in sorted(folder.iterdir()):
        print(f"{file}: {file.stat().st_size:,} bytes")


def write_set(place: Path, questions: int, *, width: int = WIDTH) -> Path:
    """Writes a set of so many questions below a directory, and returns its own directory."""
    workload = replace(read_workload(WORKLOAD), questions=questions)
    folder = place / str(questions)
    folder.mkdir(parents=True, exist_ok=True)
    if not (asked := folder / "questions.json").exists():
        asked.write_text(json.dumps(questions_of(workload)), encoding="utf-8")
    if not (features := folder / "val2014_obj36.tsv").exists():
        soon = features.with_suffix(".soon")
        with soon.open("wb") as file:
            for number in range(workload.images):
                file.write(row(number, workload, width))
        soon.replace(features)
    return folder


def questions_of(workload: Workload) -> dict[str, object]:
    """Returns questions in VQA v2's form: words at random, so many that their tokens have the workload's lengths."""
    random = Random(workload.seed)
    listed = [
        {
            "image_id": FIRST_PICTURE + int(image),
            "question": " ".join(random.choices(WORDS, k=int(length) - SPECIAL_TOKENS)),
            "question_id": number,
        }
        for number, (length, image) in enumerate(zip(workload.question_lengths, workload.image_of, strict=True))
    ]
    return {
        "info": {},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "data_subtype": "val2014",
        "questions": listed,
    }


def row(number: int, workload: Workload, width: int) -> bytes:
    """Returns a picture's row of airsplay's ten fields. Two thirds of its features are 0, as behind a ReLU."""
    random, count = np.random.default_rng((workload.seed, number)), workload.objects
    features = np.maximum(random.standard_normal((count, width), np.float32) - np.float32(0.43), 0)
    corners = np.sort(random.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
    classes, scores = _text(np.arange(count)), _text(np.ones(count, np.float32))
    fields = (
        f"COCO_val2014_{FIRST_PICTURE + number:012d}".encode(), b"%d" % SIZE[1], b"%d" % SIZE[0], classes, scores, classes,
        scores, b"%d" % count, _text(corners * np.array(SIZE * 2, np.float32)), _text(features),
    )  # fmt: skip
    return b"\t".join(fields) + b"\n"


def _text(array: NDArray[np.generic]) -> bytes:
    return base64.b64encode(array.tobytes())


if __name__ == "__main__":
    main()
