"""Shards: every question once, pictures together, the same cut every time; and items that are made while others are used."""

from __future__ import annotations

import threading
from collections.abc import Generator

import numpy as np
import pytest

from lxmert_export.data.questions.question_set import Question
from lxmert_export.predicting.plan import LOOKS, QUESTIONS, Plan, questions_digest
from lxmert_export.predicting.read_ahead import ahead

pytestmark = pytest.mark.quick


def asked(count: int, pictures: int, seed: int = 0) -> list[Question]:
    about = np.random.default_rng(seed).integers(0, pictures, count)
    return [Question(str(number), f"what {number}?", (f"p{picture}",)) for number, picture in enumerate(about)]


@pytest.mark.parametrize(
    ("count", "pictures"), [(1, 1), (5000, 900), (5000, 3), (2000, 2000), (QUESTIONS, 1), (513, 2)]
)
def test_every_question_is_in_one_shard_and_shards_are_small(count: int, pictures: int) -> None:
    plan = Plan(asked(count, pictures))
    shards = [plan.shard(number) for number in range(len(plan))]
    assert sorted(place for shard in shards for place in shard.places) == list(range(count))
    for shard in shards:
        assert 0 < len(shard.places) <= QUESTIONS
        assert len({question.pictures for question in shard.questions}) <= LOOKS
        assert [plan.questions[place] for place in shard.places] == list(shard.questions)


def test_questions_about_a_picture_share_a_shard() -> None:
    plan = Plan(questions := asked(5000, 900))
    shards = [{question.pictures for question in plan.shard(number).questions} for number in range(len(plan))]
    assert sum(map(len, shards)) == len(set.union(*shards)) == len({one.pictures for one in questions}) > 800


def test_a_picture_of_very_many_questions_is_cut() -> None:
    many = range(10, 10 + 3 * QUESTIONS)
    questions = [Question(str(n), "what?", ("a" if n in many else f"p{n}",)) for n in range(many.stop + 10)]
    plan = Plan(questions)
    assert [len(plan.places(number)) for number in range(len(plan))] == [10, *[QUESTIONS] * 3, 10]


def test_the_digest_sees_every_field() -> None:
    one = Question("1", "what?", ("a",))
    others = [Question("2", "what?", ("a",)), Question("1", "who?", ("a",)), Question("1", "what?", ("a", "b"))]
    assert len({questions_digest([one]), *(questions_digest([other]) for other in others), questions_digest([])}) == 5


def counted(upto: int, made: list[int], closed: threading.Event) -> Generator[int, None, None]:
    try:
        for number in range(upto):
            made.append(number)
            yield number
    finally:
        closed.set()


def test_the_next_items_are_made_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(5)]

    def items() -> Generator[int, None, None]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    for number in ahead(items(), 2):
        assert all(event.wait(10) for event in begun[: number + 3])  # without a thread it would wait for ever


def test_no_more_is_made_than_there_is_room_for_and_an_end_closes_all() -> None:
    made: list[int] = []
    closed = threading.Event()
    items = ahead(counted(100, made, closed), 3)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(made) <= 5 + 3
    items.close()
    assert closed.wait(10) and len(made) <= 5 + 4
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if "read-ahead" in t.name]


def test_what_making_an_item_raises_is_raised_after_the_items_before_it() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise ValueError("no third")

    found = ahead(items(), 4)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(found)
