"""Writes the built-in checkpoint: weights, tokenizer, labels, held-out questions, accuracies."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lxmert_export.demo.questions import FAMILIES
from lxmert_export.demo.words import ANSWERS, VOCABULARY, WORLD, WORLD_FIELD
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.files.beside_weights import LABELS_FILE
from lxmert_export.files.hashing import sha256
from lxmert_export.files.replacing import HF_FILE
from lxmert_export.judging.held_out import HELD_OUT_FILE, UNIT, HeldOut, write_held_out
from lxmert_export.model.lxmert import LxmertForPreTraining
from lxmert_export.reference.gate import answer_held_out
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.training.data import ANSWER_IDS, Scenes, draw_questions, padded_ids
from lxmert_export.training.evaluate import accuracy_by_family, answer_scores, scores_of
from lxmert_export.training.report import training_report
from lxmert_export.training.train import CONFIG, Progressed

QUESTIONS_EACH = 500  # of every family, for the accuracies in training.json
KEPT_SCENES, KEPT_EACH = 250, 143  # scenes, and questions of a family, in the file that judges artifacts
PRECISIONS = ("fp32", "fp16", "bf16", "tf32")
TRAINING_FILE, REPORT_FILE = "training.json", "README.md"


def record(
    model: LxmertForPreTraining,
    trained: Progressed,
    blind: LxmertForPreTraining,
    baseline: Progressed,
    held_out: Scenes,
    directory: Path,
) -> None:
    """Replaces the files of the built-in checkpoint; accuracy is that of the weights as stored, in float16."""
    rows, questions = draw_questions(held_out, QUESTIONS_EACH, seed=0)
    model.half().double()
    seeing = answer_scores(scores_of(model), held_out, rows, questions)
    guessing = answer_scores(scores_of(blind, blind=True), held_out, rows, questions)
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "questions": len(questions),
        "accuracy": accuracy_by_family(seeing, questions),
        "language_only": accuracy_by_family(guessing, questions),
        "minutes": trained.seconds / 60,
        "language_only_minutes": baseline.seconds / 60,
        "curve": trained.curve,
    }
    with TemporaryDirectory() as place:
        temporary = Path(place) / "checkpoint"
        model.config = CONFIG.replace(extra={WORLD_FIELD: WORLD})
        model.half().save_pretrained(temporary)
        _write_words(temporary)
        write_held_out(temporary / HELD_OUT_FILE, _held_out(model, held_out, sha256(temporary / HF_FILE)))
        (temporary / TRAINING_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (temporary / REPORT_FILE).write_text(training_report(facts), encoding="utf-8")
        replace_files(directory, {file.name: file.read_bytes() for file in sorted(temporary.iterdir())})


def _write_words(directory: Path) -> None:
    vocabulary = directory / "vocab.txt"
    vocabulary.write_text("".join(f"{word}\n" for word in VOCABULARY), encoding="utf-8")
    LxmertTokenizerFast(vocabulary, model_max_length=CONFIG.max_position_embeddings).save_pretrained(directory)
    (directory / LABELS_FILE).write_text(json.dumps(ANSWERS, indent=0) + "\n", encoding="utf-8")


def _held_out(model: LxmertForPreTraining, scenes: Scenes, checkpoint_sha256: str) -> HeldOut:
    """Returns questions about the first held-out scenes, with float64 answers and a noise floor for each precision."""
    kept = scenes.first(KEPT_SCENES)
    rows, questions = draw_questions(kept, KEPT_EACH, seed=0)
    families = list(FAMILIES)
    asked = HeldOut(
        checkpoint_sha256=checkpoint_sha256,
        families=tuple(families),
        precisions=PRECISIONS,
        features=kept.pixels,
        boxes=np.round(kept.boxes * UNIT).astype(np.uint16),
        object_counts=np.array([len(scene.shapes) for scene in kept.scenes]),
        scene=np.array(rows),
        input_ids=padded_ids([question.text for question in questions]),
        family=np.array([families.index(question.family) for question in questions]),
        answer=np.array([ANSWER_IDS[question.answer] for question in questions]),
    )
    return answer_held_out(model, model.config, asked)
