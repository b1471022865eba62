"""A command and the function behind it do the same when nothing is said: their defaults are one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import lxmert_export as lx
from lxmert_export.cli.engine import tensorrt
from lxmert_export.cli.export import onnx, tensorflow, tflite
from lxmert_export.cli.parity import parity, verify
from lxmert_export.runners.onnx.providers import CPU

pytestmark = pytest.mark.quick

# Where a command spells something another way than Python: name of the option, what its default means there.
SPELLED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "no_parity": lambda value: {"parity": not value},
    "no_laws": lambda value: {"laws": not value},
    "locate": lambda value: {"find_divergence": value},
    "provider": lambda value: {"providers": value or (CPU,)},
    "require": lambda value: {"require_targets": value or ()},
    "device_report": lambda value: {"device_reports": value or ()},
    "output": lambda value: {"directory": value},
    "artifacts": lambda value: {},  # which Python requires
    "source": lambda value: {"source": value},
}
PAIRS = [
    (onnx, lx.export),
    (tensorflow, lx.export),
    (tflite, lx.export),
    (tensorrt, lx.build_engine),
    (parity, lx.check_parity),
    (verify, lx.verify),
]
NOTHING = {None: ()}  # a list that is not there, and an empty one


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


@pytest.mark.parametrize(("command", "function"), PAIRS, ids=lambda function: function.__name__)
def test_defaults_are_the_same(command: Callable[..., Any], function: Callable[..., Any]) -> None:
    ours = defaults(function)
    said: dict[str, Any] = {}
    for name, value in defaults(command).items():
        said |= SPELLED.get(name, lambda value, name=name: {name: value})(value)  # type: ignore[misc]
    common = {name for name in said if name in ours}
    assert len(common) > (1 if command is verify else 3)
    pairs = {name: tuple(NOTHING.get(side[name], side[name]) for side in (said, ours)) for name in common}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    assert not differing


def test_parity_judges_the_laws_and_sets_a_limit_in_both() -> None:
    ours = defaults(lx.check_parity)
    assert ours["laws"] is True and ours["time_limit"] == defaults(parity)["time_limit"] == 1800
