"""Two sets of answers side by side: flips, McNemar's test, the interval of the difference, the gate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from lxmert_export.data.questions.question_set import Question, QuestionSet
from lxmert_export.errors import InputError
from lxmert_export.scoring.comparing import MOST_EXACT, compare, difference_of, mcnemar
from lxmert_export.scoring.evaluation import AnswerSet, evaluate_answers
from lxmert_export.scoring.labels import score_own
from lxmert_export.scoring.official import Scorer
from lxmert_export.scoring.report import EvaluationReport

pytestmark = pytest.mark.quick

COUNT = 200
ASKED = QuestionSet(
    "own",
    tuple(Question(f"q{n}", f"question {n}?", (f"picture{n // 5}",)) for n in range(COUNT)),
    False,
    Path("questions.jsonl"),
    "questions of one's own",
)
TRUTHS = {one.id: "yes" for one in ASKED.questions}
SCORER = Scorer("the true answers of your own", Path("questions.jsonl"), lambda answers: score_own(answers, TRUTHS))


def answers(wrong: range) -> dict[str, str]:
    return {f"q{n}": "no" if n in wrong else "yes" for n in range(COUNT)}


def evaluated(*wrong: range, scorer: Scorer | None = SCORER, max_drop: float | None = None) -> EvaluationReport:
    sets = [AnswerSet(f"set {place}", {"kind": "answers"}, answers(one)) for place, one in enumerate(wrong)]
    return evaluate_answers(ASKED, sets, scorer, max_drop=max_drop)


def test_flips_are_listed_with_their_pictures_and_losses_come_first() -> None:
    (found,) = evaluated(range(10), range(5, 13)).comparisons
    assert [flip.question.id for flip in found.flips] == ["q10", "q11", "q12", "q0", "q1", "q2", "q3", "q4"]
    assert found.flips[0].to_dict() == {
        "id": "q10", "pictures": ["picture2"], "question": "question 10?", "answers": ["yes", "no"], "scores": [100, 0],
    }  # fmt: skip
    assert found.agreement == 96 and found.difference is not None
    assert (found.difference.better, found.difference.worse, found.difference.points) == (5, 3, 1.0)


def test_answers_that_score_alike_are_flips_too() -> None:
    other = {**answers(range(3)), "q0": "maybe"}
    sets = [AnswerSet("a", {}, answers(range(3))), AnswerSet("b", {}, other)]
    (found,) = evaluate_answers(ASKED, sets, SCORER).comparisons
    assert [(flip.question.id, flip.scores) for flip in found.flips] == [("q0", (0, 0))]
    assert found.difference is not None and (found.difference.points, found.difference.p_value) == (0, 1)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (0, 1), (3, 9), (10, 10), (499, 501), (0, 60)])
def test_the_exact_test_is_the_binomial_one(better: int, worse: int) -> None:
    expected = scipy.stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse, exact=True) == pytest.approx(expected, rel=1e-9)


def test_of_many_questions_the_normal_distribution_is_as_good() -> None:
    for better, worse in ((480, 560), (1000, 1100), (510, 510)):
        assert mcnemar(better, worse, exact=False) == pytest.approx(mcnemar(better, worse, exact=True), abs=2e-3)
    assert difference_of([0.0] * MOST_EXACT, [100.0] * MOST_EXACT).exact
    assert not difference_of([0.0] * (MOST_EXACT + 1), [100.0] * (MOST_EXACT + 1)).exact


def test_the_interval_is_the_bootstraps() -> None:
    """Against a bootstrap that draws the questions themselves, and the textbook's standard error."""
    generator = np.random.default_rng(5)
    first = generator.choice([0.0, 30.0, 60.0, 90.0, 100.0], 500)
    second = np.where(generator.random(500) < 0.2, generator.choice([0.0, 30.0, 100.0], 500), first)
    found = difference_of(first.tolist(), second.tolist())
    gains = second - first
    drawn = gains[generator.integers(0, 500, (4000, 500))].mean(axis=1)
    error = float(gains.std() / math.sqrt(500))
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.15 * error)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found == difference_of(first.tolist(), second.tolist())  # seeded


def test_pairs_count_not_the_two_scores_alone() -> None:
    """Two sets with the same scores: one flips five questions each way, the other fifty. The interval knows the difference."""
    few, many = evaluated(range(60), range(5, 65)), evaluated(range(60), range(50, 110))
    widths = [one.comparisons[0].difference for one in (few, many)]
    assert widths[0] is not None and widths[1] is not None and widths[0].points == widths[1].points == 0
    assert widths[1].high - widths[1].low > 3 * (widths[0].high - widths[0].low)


@pytest.mark.parametrize(("wrong", "passed"), [(10, True), (12, True), (13, False)])
def test_the_gate_allows_as_much_as_it_says(wrong: int, passed: bool) -> None:
    report = evaluated(range(10), range(wrong), max_drop=1.0)
    assert report.passed is passed
    assert [one["passed"] for one in report.to_dict()["comparisons"]] == [passed]


def test_a_drop_of_exactly_the_limit_passes() -> None:
    """0.3 points are no binary fraction: three of a thousand questions are 0.30000000000000004."""
    first, second = [100.0] * 1000, [100.0] * 997 + [0.0] * 3
    assert difference_of(first, second).points == pytest.approx(-0.3)
    asked = QuestionSet("own", tuple(Question(str(n), "?", ("p",)) for n in range(1000)), True, Path("q"), "")
    truths = {str(n): "yes" for n in range(1000)}
    sets = [
        AnswerSet("a", {}, truths),
        AnswerSet("b", {}, {**truths, **{str(n): "no" for n in range(3)}}),
        AnswerSet("c", {}, {**truths, **{str(n): "no" for n in range(4)}}),
    ]
    scorer = Scorer("own", Path("q"), lambda given: score_own(given, truths))
    assert evaluate_answers(asked, sets[:2], scorer, max_drop=0.3).passed
    report = evaluate_answers(asked, sets, scorer, max_drop=0.3)
    assert not report.passed and report.summary() == "c scores 0.40 points less than a, and 0.3 are allowed"


def test_without_true_answers_agreement_is_told_alone() -> None:
    report = evaluated(range(10), range(5), scorer=None)
    values = report.to_dict()
    assert values["main"] is None and values["scored_by"] is None and values["passed"]
    assert [(one["scores"], one["questions"]) for one in values["runners"]] == [({}, {})] * 2
    (found,) = values["comparisons"]
    assert found["agreement"] == 97.5 and found["difference"] is None and found["flips"][0]["scores"] is None
    assert report.summary() == "200 questions without true answers: agreement with set 0: set 1 97.50 %"


def test_answers_to_other_questions_are_left_out_and_told() -> None:
    found = evaluate_answers(ASKED, [AnswerSet("a", {}, {**answers(range(0)), "more": "no"})], SCORER)
    assert found.notes == ("a: answers to 1 other questions were left out",)
    assert found.to_dict()["runners"][0]["scores"] == {"accuracy": 100}


@pytest.mark.parametrize(
    ("sets", "scorer", "max_drop", "message"),
    [
        ([], SCORER, None, "nothing to evaluate"),
        (["a", "b", "a"], SCORER, None, "a: is given twice"),
        (["a"], None, None, "no true answers to score by, and only one set of answers: give annotations"),
        (["a", "b"], None, 0.3, "max_drop: needs true answers: give annotations"),
        (["a"], SCORER, 0.3, "max_drop: needs a second set of answers"),
    ],
)
def test_what_says_nothing_is_refused(
    sets: list[str], scorer: Scorer | None, max_drop: float | None, message: str
) -> None:
    """An empty comparison is never a pass."""
    with pytest.raises(InputError, match=message):
        evaluate_answers(ASKED, [AnswerSet(one, {}, answers(range(3))) for one in sets], scorer, max_drop=max_drop)


def test_a_question_without_an_answer_is_told() -> None:
    given = answers(range(3))
    del given["q7"], given["q9"]
    with pytest.raises(
        InputError, match=r"a: does not answer 2 of the 200 questions of questions.jsonl: q7, q9; every"
    ):
        evaluate_answers(ASKED, [AnswerSet("a", {}, given)], SCORER)


def test_two_sets_are_compared_over_the_questions_that_count() -> None:
    """GQA's accuracy is of balanced questions: a flip of another one is listed, and changes no score."""
    first, second = score_own(answers(range(0)), TRUTHS), score_own(answers(range(4)), TRUTHS)
    counted = [one.id for one in ASKED.questions[4:]]
    pair = tuple(type(one)(one.scores, one.questions, one.main, counted) for one in (first, second))
    found = compare(ASKED, ("a", "b"), (answers(range(0)), answers(range(4))), pair)  # type: ignore[arg-type]
    assert len(found.flips) == 4 and found.difference is not None and found.difference.points == 0
