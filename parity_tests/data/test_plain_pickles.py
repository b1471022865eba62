"""Pickles of strangers: plain data is read, and nothing that could run code."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lxmert_export.files.plain_pickles import RefusedPickleError, load_pickle

pytestmark = pytest.mark.quick

PLAIN: dict[str, Any] = {
    "numbers and texts": {"a": 1, "b": "text", "c": 2.5, "d": [None, True], "e": b"bytes"},
    "an array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "an array by columns": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "an array of the other byte order": np.arange(3, dtype=">f8"),
    "an array of texts": np.array(["cat", "dog"]),
    "a number of numpy": {"height": np.int64(480), "share": np.float32(0.5)},
    "an empty array": np.zeros((0, 4), np.float32),
    "an ordered dictionary": collections.OrderedDict(a=1),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_is_read_as_pickle_reads_it(name: str, protocol: int) -> None:
    content = pickle.dumps(PLAIN[name], protocol)
    np.testing.assert_equal(load_pickle(content), pickle.loads(content))


def test_an_array_of_objects_is_what_it_holds() -> None:
    assert load_pickle(pickle.dumps(np.array({"image_h": 3}, dtype=object))) == {"image_h": 3}


def test_what_python_2_wrote_is_read() -> None:
    array = np.arange(3, dtype=np.int64)
    python_2 = pickle.dumps(array, 2).replace(b"numpy._core", b"numpy.core")
    assert np.array_equal(load_pickle(python_2), array)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, ("touch {}",)), "system"),
        ((eval, ("open('{}', 'w')",)), "eval"),
        ((getattr, ("", "join")), "getattr"),
        ((np.load, ("{}",)), "load"),
    ],
)
def test_a_hostile_pickle_is_refused_and_named(call: Any, named: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    work, arguments = call
    filled = tuple(one.format(trace) if isinstance(one, str) and "{}" in one else one for one in arguments)
    with pytest.raises(RefusedPickleError, match=named):
        load_pickle(pickle.dumps({"features": Hostile((work, filled))}))
    assert not trace.exists()


REFUSED: dict[str, bytes] = {
    "a function of numpy is given a state": b"cnumpy.core.multiarray\n_reconstruct\n}b.",
    "a place far behind the end": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "an array of a claimed size": pickle.dumps(np.zeros(3, np.uint8)).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    "a function as value": b"\x80\x02cnumpy\ndtype\n.",
    "nothing": b"",
    "cut": pickle.dumps(np.arange(1000.0))[:-500],
    "text": b"no pickle at all",
    "itself": b"\x80\x02]q\x00h\x00a.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_or_made_to_break_the_reader_is_one_error(name: str) -> None:
    with pytest.raises(ValueError, match="pickle"):
        load_pickle(REFUSED[name])


def test_an_array_in_many_places_is_made_once() -> None:
    """Arrays of Python 2 have their bytes as text, which is encoded anew: a kilobyte could fill the memory."""
    written = pickle.dumps([np.arange(1000.0)] * 50, protocol=2)
    found = load_pickle(written)
    assert len(found) == 50 and all(one is found[0] for one in found)


def test_a_value_in_many_places_is_read_once() -> None:
    value: list[Any] = ["x"]
    for _ in range(60):
        value = [value, value]
    assert pickletools.genops(content := pickle.dumps(value)) is not None
    assert isinstance(load_pickle(content), list)
