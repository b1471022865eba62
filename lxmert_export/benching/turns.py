"""Calls contestants in turn: one call at a time, the order changing with each round, and a rest before each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lxmert_export.interrupts import raise_if_stopped


@dataclass(frozen=True)
class Call:
    """One timed call: its seconds, and the CPU seconds of all threads of its process meanwhile."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Turn:
    """One turn of a contestant. ``get_ready`` is not timed and comes before the rest; ``call`` comes after it."""

    call: Callable[[], Call]
    get_ready: Callable[[], None] = lambda: None


def take_turns(
    turns: Mapping[str, Sequence[Turn]], rest: Callable[[], None], advance: Callable[[], None] = lambda: None
) -> dict[str, list[Call]]:
    """Takes the turns of all contestants, interleaved; returns each one's calls in the order of its turns.

    A contestant that has no turn left is passed over. ``advance`` is called after each round.
    """
    calls: dict[str, list[Call]] = {name: [] for name in turns}
    for number, order in enumerate(orders(list(turns), max(map(len, turns.values()), default=0))):
        for name in order:
            if number < len(turns[name]):
                raise_if_stopped()
                turns[name][number].get_ready()
                rest()
                calls[name].append(turns[name][number].call())
        advance()
    return calls


def orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Yields the order of each round: each begins with another contestant, and every other cycle runs backwards.

    So each contestant comes first, in the middle and last equally often, and not always after the same one.
    """
    for number in range(rounds):
        cycle, place = divmod(number, max(len(names), 1))
        order = list(names[place:]) + list(names[:place])
        yield order if cycle % 2 == 0 else order[::-1]
