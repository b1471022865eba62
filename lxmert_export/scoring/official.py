"""Finds who scores answers: by the kind of the annotations that belong to the questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.data.questions.annotations import Annotations, GqaChoices, read_annotations, read_gqa_choices
from lxmert_export.data.questions.question_set import QuestionSet
from lxmert_export.errors import InputError, shortened
from lxmert_export.option_names import option
from lxmert_export.scoring.gqa import score_gqa
from lxmert_export.scoring.labels import score_labels, score_own
from lxmert_export.scoring.nlvr2 import score_nlvr2
from lxmert_export.scoring.scored import Scored
from lxmert_export.scoring.vqa import score_vqa

Answers = Mapping[str, str]


@dataclass(frozen=True)
class Scorer:
    """Scores a set of answers. ``name``: by what, for people. ``truths``: the file that it knows the true answers from."""

    name: str
    truths: Path
    score: Callable[[Answers], Scored]


def scorer_of(
    questions: QuestionSet, annotations: str | Path | None = None, choices: str | Path | None = None
) -> Scorer | None:
    """Returns who scores answers to these questions; None if there are no true answers, as of a test split.

    ``InputError``: the files cannot be read, or do not belong to the questions.
    """
    found = read_annotations(questions, annotations)
    kind = None if found is None else found.kind
    if choices is not None and kind != "gqa":
        raise InputError(f"{option('choices')}: is for GQA's questions as published, and these are {questions.format}")
    if found is None:
        return None
    if kind == "gqa":
        return Scorer("GQA's official scores", found.path, _gqa(found, choices))
    truths = found.of
    scorers: dict[str, tuple[str, Callable[[Answers], Scored]]] = {
        "vqa": ("VQA's official score", lambda answers: score_vqa(answers, truths)),
        "nlvr2": ("NLVR2's official scores", lambda answers: score_nlvr2(answers, truths)),
        "labels": ("airsplay's labels", lambda answers: score_labels(answers, truths, _main_of(questions))),
        "own": ("the true answers of your own", lambda answers: score_own(answers, truths)),
    }
    name, score = scorers[found.kind]
    return Scorer(name, found.path, score)


def _gqa(found: Annotations, choices: str | Path | None) -> Callable[[Answers], Scored]:
    known = None if choices is None else read_gqa_choices(choices)
    if known is not None:
        _check_choices(found, known, choices)
    return lambda answers: score_gqa(answers, found.of, known)


def _check_choices(found: Annotations, known: Mapping[str, GqaChoices], choices: str | Path | None) -> None:
    missing = [id for id, annotation in found.of.items() if annotation.balanced and id not in known]
    if missing:
        raise InputError(
            f"{choices}: has no choices for {len(missing)} of the questions of {found.path}: {shortened(missing)}; give those "
            "of the same split"
        )


def _main_of(questions: QuestionSet) -> str:
    return "overall" if questions.dataset == "vqa" else "accuracy"
