"""Figures: percentiles, intervals, ratios, and the order in which contestants are called."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from lxmert_export.benching.agreement import agreement_of
from lxmert_export.benching.figures import Interval, interval_of, latency_of, speed_of
from lxmert_export.benching.turns import Call, Turn, orders, take_turns

pytestmark = pytest.mark.quick


def test_percentiles_are_numpys() -> None:
    calls = np.random.default_rng(0).gamma(2.0, 10.0, 41).tolist()
    found = latency_of(calls)
    assert [found.p50, found.p95, found.p99] == np.percentile(calls, [50, 95, 99]).tolist()
    assert found.spread == pytest.approx(float(np.subtract(*np.percentile(calls, [75, 25]))) / found.p50)


@pytest.mark.parametrize(("count", "left_out"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (10, 1), (30, 9), (100, 39)])
def test_the_interval_of_a_median_is_between_the_tables_order_statistics(count: int, left_out: int) -> None:
    """Source of the ranks: the usual table of 95 % intervals for a median (ranks 2 and 9 of 10, 10 and 21 of 30)."""
    values = list(range(count))
    assert interval_of(values[::-1]) == Interval(float(np.median(values)), left_out, count - 1 - left_out)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = [
        (found := interval_of(generator.exponential(size=30).tolist())).low <= np.log(2) <= found.high
        for _ in range(1000)
    ]
    assert 0.94 <= np.mean(held) <= 0.98  # its coverage for 30 values is 0.957


def test_speed_is_the_median_of_the_rounds_ratios() -> None:
    """A machine that slows down in the middle slows both: the ratios do not see it."""
    machine = [1.0, 1.0, 3.0, 3.0, 3.0, 1.0, 1.0]
    found = speed_of([2 * slow for slow in machine], [1 * slow for slow in machine])
    assert found == Interval(2.0, 2.0, 2.0)


def test_each_contestant_takes_each_place_equally_often_and_follows_different_ones() -> None:
    rounds = list(orders(["a", "b", "c"], 12))
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert rounds[:4] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["c", "b", "a"]]
    for place in range(3):
        assert Counter(order[place] for order in rounds) == {"a": 4, "b": 4, "c": 4}
    before_a = Counter(one for order in rounds for one, other in pairwise(order) if other == "a")
    assert before_a == {"b": 4, "c": 4}


def test_a_rest_comes_before_every_call_and_after_what_is_not_timed() -> None:
    happened: list[str] = []

    def turn(name: str) -> Turn:
        def call() -> Call:
            happened.append(name)
            return Call(1.0, 1.0)

        return Turn(call, lambda: happened.append(f"load {name}"))

    calls = take_turns(
        {"a": [turn("a")] * 2, "b": [turn("b")]}, lambda: happened.append("rest"), lambda: happened.append("round")
    )
    assert happened == [
        "load a", "rest", "a", "load b", "rest", "b", "round",
        "load a", "rest", "a", "round",
    ]  # fmt: skip
    assert {name: len(own) for name, own in calls.items()} == {"a": 2, "b": 1}


def test_the_output_that_differs_most_is_shown() -> None:
    first = {"near": np.ones((2, 3), np.float32), "far": np.full((2, 3), 10.0, np.float32)}
    own = {"near": first["near"] + np.float32(1e-4), "far": first["far"] * np.float32(1.5)}
    found = agreement_of(first, own, ("fp32", "fp32"))
    assert (found.output, found.largest, found.share, found.agrees) == ("far", 5.0, 0.5, False)
    assert agreement_of(first, own, ("fp32", "int8")).agrees  # as far as int8 may be
    assert agreement_of(first, first, ("fp32", "fp32")).share == 0.0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_answers_of_another_question_agree_in_no_precision(precision: str) -> None:
    generator = np.random.default_rng(0)
    first, other = ({"score": generator.standard_normal((4, 50))} for _ in range(2))
    assert not agreement_of(first, other, ("fp32", precision)).agrees  # type: ignore[arg-type]
    assert not agreement_of(first, {"score": 0 * first["score"]}, ("fp32", precision)).agrees  # type: ignore[arg-type]
