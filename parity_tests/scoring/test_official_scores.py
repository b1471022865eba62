"""The scores are those of the official programs, to the last digit; and each of their quirks is needed for that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from lxmert_export.data.questions.annotations import (
    GqaAnnotation,
    LabelAnnotation,
    VqaAnnotation,
    read_annotations,
    read_gqa_choices,
)
from lxmert_export.data.questions.answers import read_answers
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.scoring import vqa_words
from lxmert_export.scoring.gqa import score_gqa
from lxmert_export.scoring.labels import score_labels, score_own
from lxmert_export.scoring.nlvr2 import score_nlvr2
from lxmert_export.scoring.scored import Scored
from lxmert_export.scoring.vqa import score_vqa
from lxmert_export.scoring.vqa_words import normalised
from parity_tests.fixtures.golden_files import GOLDEN

pytestmark = pytest.mark.quick

SCORES = GOLDEN / "scores"


@cache
def official(dataset: str) -> Any:
    return json.loads((SCORES / dataset / "official.json").read_text())


def scored_vqa() -> Scored:
    folder = SCORES / "vqa"
    found = read_annotations(read_questions(folder / "questions.json"), folder / "annotations.json")
    assert found is not None and found.kind == "vqa"
    return score_vqa(read_answers(folder / "results.json"), found.of)


def scored_gqa() -> Scored:
    folder = SCORES / "gqa"
    found = read_annotations(read_questions(folder / "questions.json"))
    assert found is not None and found.kind == "gqa"
    return score_gqa(read_answers(folder / "predictions.json"), found.of, read_gqa_choices(folder / "choices.json"))


def test_vqa_is_scored_as_the_official_program_does() -> None:
    scored, expected = scored_vqa(), official("vqa")
    assert scored.scores == {
        "overall": expected["accuracy"]["overall"],
        "by_question_type": expected["accuracy"]["perQuestionType"],
        "by_answer_type": expected["accuracy"]["perAnswerType"],
    }
    assert scored.questions == expected["perQuestion"] and len(scored.questions) == 400


def test_gqa_is_scored_as_the_official_program_does() -> None:
    scored, expected = scored_gqa(), dict(official("gqa"))
    by_type = expected.pop("per")
    assert {name: scored.scores[name] for name in expected} == expected
    for name, found in (
        ("structural", "structural_type"),
        ("semantic", "semantic_type"),
        ("steps", "steps"),
        ("words", "words"),
    ):
        assert scored.scores[f"by_{found}"] == {kind: share for kind, (share, _) in by_type[name].items()}, name
    assert len(scored.counted) == 232 and len(scored.questions) == 300 and scored.notes == ()


def test_nlvr2_is_scored_as_the_official_program_does() -> None:
    folder = SCORES / "nlvr2"
    found = read_annotations(read_questions(folder / "labels.jsonl"))
    assert found is not None and found.kind == "nlvr2"
    scored = score_nlvr2(read_answers(folder / "predictions.csv"), found.of)
    assert scored.scores == {name: 100 * share for name, share in official("nlvr2").items()}
    assert len(scored.questions) == 374


# What a careful programmer would write instead of each oddity. Some answer must then be rewritten in another way.
CURES = {
    "periods before a digit": ("PERIOD", re.compile(r"(?<!\d)\.(?!\d)")),
    "every mark becomes a space": ("COMMA_IN_NUMBER", re.compile(r"(?!)")),
    "a colon and an apostrophe, too": ("PUNCTUATION", vqa_words.PUNCTUATION + ":'"),
    "every period": ("MOST_PERIODS", 0),
    "no articles": ("ARTICLES", frozenset[str]()),
    "no digits": ("DIGITS", dict[str, str]()),
    "no contractions": ("CONTRACTIONS", dict[str, str]()),
}


@pytest.fixture
def words() -> Iterator[dict[str, str]]:
    """915 awkward answers, as the official program's processPunctuation and processDigitArticle (c4e6a0e) rewrote them."""
    normalised.cache_clear()
    yield json.loads((SCORES / "vqa" / "words.json").read_text())
    normalised.cache_clear()


def test_answers_are_rewritten_as_the_official_program_does(words: dict[str, str]) -> None:
    assert {answer: normalised(answer) for answer in words} == words


@pytest.mark.parametrize("cure", CURES)
def test_each_oddity_is_needed(cure: str, words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = CURES[cure]
    monkeypatch.setattr(vqa_words, name, value)
    assert {answer: normalised(answer) for answer in words} != words


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("The U.S.", "us"),
        ("5.0", "5.0"),
        (".5", ".5"),
        ("a dog.", "dog"),
        ("1,000-2", "10002"),  # a number with a comma: marks are deleted
        ("black-white", "black white"),  # else they become spaces
        ("yes , no-way", "yes no way"),  # unless one like it stands beside a space
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("Dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("'ow'sat", "'ow's'at"),
        ("Id've", "id've"),  # the entry begins with a capital, and so is never found
        ("a.b" * 40, "ab" * 32 + "a.b" * 8),  # 32 periods are removed, and no more
        ("CAFÉ", "café"),
    ],
)
def test_answers_are_normalised_with_the_official_oddities(written: str, expected: str) -> None:
    assert normalised(written) == expected


def annotated(answers: list[str], records: tuple[int, ...] | None = None) -> dict[str, VqaAnnotation]:
    return {"q": VqaAnnotation(tuple(answers), records or tuple(range(len(answers))), "what", "other")}


@pytest.mark.parametrize(("agreeing", "points"), [(0, 0.0), (1, 30.0), (2, 60.0), (3, 90.0), (4, 100.0), (9, 100.0)])
def test_nine_of_ten_annotators_judge_an_answer(agreeing: int, points: float) -> None:
    others = [f"other {place}" for place in range(10 - agreeing)]
    assert score_vqa({"q": "cat"}, annotated(["cat"] * agreeing + others)).questions == {"q": points}


@pytest.mark.parametrize(("right", "agreeing", "expected"), [(12, 1, 25.62), (24, 3, 51.88), (39, 1, 81.87)])
def test_means_are_rounded_in_the_order_of_the_official_program(right: int, agreeing: int, expected: float) -> None:
    """It divides 100 × the sum. 100 × the mean would be 25.63, 51.87 and 81.88."""
    counts = [4] * right + [agreeing] + [0] * (48 - right - 1)
    truths = {
        str(place): annotated(["cat"] * count + [f"{n}" for n in range(10 - count)])["q"]
        for place, count in enumerate(counts)
    }
    scores = score_vqa(dict.fromkeys(truths, "cat"), truths).scores
    assert scores == {
        "overall": expected,
        "by_question_type": {"what": expected},
        "by_answer_type": {"other": expected},
    }


def test_answers_that_all_agree_are_not_normalised() -> None:
    assert score_vqa({"q": "Yes."}, annotated(["yes"] * 10)).questions == {"q": 0.0}
    assert score_vqa({"q": "Yes."}, annotated(["yes"] * 9 + ["no"])).questions == {"q": 100.0}
    assert score_vqa({"q": " yes\n"}, annotated(["yes"] * 10)).questions == {"q": 100.0}


def test_annotators_without_numbers_are_one_if_they_agree() -> None:
    """The official program takes as the others those whose record differs: of equal records, none is left."""
    same = (0,) * 10
    assert score_vqa({"q": "cat"}, annotated(["cat"] * 10, same)).questions == {"q": 0.0}
    assert score_vqa({"q": "cat"}, annotated(["cat"] * 5 + ["dog"] * 5, same)).questions == {"q": 50.0}


GQA = GqaAnnotation("cat", True, "query", "obj", "what", "animal", (), 2, 5)


def test_gqa_without_choices_or_entailed_questions_says_what_is_left_out() -> None:
    annotations = {"1": GQA, "2": replace(GQA, structural="verify", entailed=("2", "9"), group=None)}
    scored = score_gqa({"1": "dog", "2": "cat"}, annotations)
    assert scored.scores["accuracy"] == 50 and (scored.scores["open"], scored.scores["binary"]) == (0, 100)
    assert scored.scores.keys().isdisjoint({"consistency", "validity", "plausibility"})
    assert scored.notes == (
        "no consistency: question '2' entails '9', which is not in the file of questions",
        "no validity and plausibility: they need GQA's file of choices",
    )
    assert scored.scores["distribution"] == 0.01  # one answer expected, none given


def test_questions_in_no_group_have_no_distribution() -> None:
    scored = score_gqa({"1": "cat"}, {"1": replace(GQA, group=None)})
    assert "distribution" not in scored.scores and scored.scores["consistency"] == 0


def test_airsplays_labels_say_how_right_an_answer_is() -> None:
    labels = {
        "1": LabelAnnotation({"net": 1, "fence": 0.3}, "what", "other"),
        "2": LabelAnnotation({"yes": 1}, "is it", "yes/no"),
        "3": LabelAnnotation({}, "what", "other"),
    }
    scored = score_labels({"1": "fence", "2": "yes", "3": "no"}, labels, "overall")
    assert scored.scores == {
        "overall": pytest.approx(100 * 1.3 / 3),
        "by_question_type": {"is it": 100, "what": 15},
        "by_answer_type": {"other": 15, "yes/no": 100},
    }
    assert scored.questions == {"1": 30, "2": 100, "3": 0} and "not by the official program" in scored.notes[0]


def test_own_answers_are_right_if_they_are_spelled_alike() -> None:
    assert score_own({"1": "cat", "2": "Cat"}, {"1": "cat", "2": "cat"}).scores == {"accuracy": 50}
