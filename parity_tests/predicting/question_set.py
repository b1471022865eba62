"""A small set of questions and features, as VQA's files have them, and what an artifact answers to each question by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lxmert_export.artifact.directory import Artifact
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.pictures import Picture
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.runner import Runner, name_answers
from parity_tests.data.feature_files import WIDTH, airsplay_tsv, detected

WORDS = "how many circles are there is a red square left of the blue star what colour".split()


def write_set(
    folder: Path,
    *,
    questions: int = 90,
    pictures: int = 20,
    objects: Sequence[int] = (2, 3, 5),
    longest: int = 12,
    width: int = WIDTH,
) -> tuple[Path, Path]:
    """Writes features and questions of VQA's form; returns both files. Pictures have different numbers of questions."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(questions)
    seen = detected(pictures, objects=objects, width=width)
    about = [*range(pictures), *random.integers(0, pictures, questions - pictures).tolist()]
    rows = [
        {
            "image_id": int(seen[picture].id[-12:]),
            "question": " ".join(random.choice(WORDS, random.integers(1, longest))) + "?",
            "question_id": 1000 + place,
        }
        for place, picture in enumerate(random.permutation(about).tolist())
    ]
    around = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": "val2014", "license": {}}
    file = folder / "questions.json"
    file.write_text(json.dumps({**around, "questions": rows}))
    return airsplay_tsv(folder, seen), file


def write_pairs(folder: Path, *, questions: int = 24, pictures: int = 8) -> tuple[Path, Path]:
    """The same of NLVR2's form: sentences about two pictures."""
    folder.mkdir(exist_ok=True)
    seen = detected(pictures, objects=(2, 4))
    random = np.random.default_rng(3)
    rows = []
    for place in range(questions):
        left, right = random.choice(pictures, 2, replace=False)
        rows.append(
            {
                "identifier": f"dev-{place}-0-0", "uid": f"u{place}", "img0": seen[left].id, "img1": seen[right].id,
                "sent": " ".join(random.choice(WORDS, random.integers(2, 9))), "label": int(place % 2),
            }
        )  # fmt: skip
    file = folder / "valid.json"
    file.write_text(json.dumps(rows))
    return airsplay_tsv(folder, seen), file


def answered_alone(artifact: Artifact, features: Path, questions: Path) -> dict[str, tuple[str, float]]:
    """The answer to each question in a call of its own, and its probability, by the question's id: the plainest way there is."""
    with open_features(features) as source, open_runner(artifact) as runner:
        asked = read_questions(questions).spelled_as_in(set(source.ids)).questions
        found = {}
        for question in asked:
            seen = [source.read(picture) for picture in question.pictures]
            found[question.id] = _answer(runner, question.text, seen)
        return found


def words(alone: dict[str, tuple[str, float]]) -> dict[str, str]:
    """The answers alone."""
    return {number: answer for number, (answer, _) in alone.items()}


def _answer(runner: Runner, text: str, pictures: Sequence[Picture]) -> tuple[str, float]:
    most = max(len(one.features) for one in pictures)
    feats = np.zeros((1, len(pictures), most, pictures[0].features.shape[1]), np.float32)
    boxes, mask = np.zeros((1, len(pictures), most, 4), np.float32), np.zeros((1, len(pictures), most), np.float32)
    for side, one in enumerate(pictures):
        count = len(one.features)
        feats[0, side, :count], boxes[0, side, :count] = one.features, one.boxes
        mask[0, side, :count] = 1
    if len(pictures) == 1:
        feats, boxes, mask = feats[:, 0], boxes[:, 0], mask[:, 0]
    inputs = {
        "input_ids": np.array([runner.tokenizer.encode(text)]), "visual_feats": feats, "visual_pos": boxes,
        "visual_attention_mask": mask,
    }  # fmt: skip
    outputs = runner.run(inputs)
    if len(pictures) == 2:
        return name_answers(outputs["logits"], ("False", "True"), "alone", top=1)[0][0]
    return runner.answers(outputs, top=1)[0][0]
