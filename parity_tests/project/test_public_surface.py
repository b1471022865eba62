"""Every public name, parameter, command and option that was there at 9dbe590 is there still, in the wheel too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from parity_tests.fixtures import public_surface

RECORDED: dict[str, Any] = json.loads(Path(public_surface.__file__).with_suffix(".json").read_text())


def lost(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What was recorded and is not there any more, or is there in a way that breaks its callers."""
    gone = []
    for name, described in recorded["names"].items():
        if name not in found["names"]:
            gone.append(name)
        else:
            gone += [f"{name}: {line}" for line in _broken_calls(described, found["names"][name])]
    for command, options in recorded["commands"].items():
        there = found["commands"].get(command, {})
        gone += [
            f"{command} {option}"
            for option, spellings in options.items()
            if option not in there or not set(spellings) <= set(there[option])
        ]
    return gone


def _broken_calls(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Parameters stay in their order, and stay optional; new ones are optional or by keyword."""
    if before["kind"] != now["kind"]:
        return [f"a {before['kind']} is a {now['kind']}"]
    old, new = before.get("parameters", []), now.get("parameters", [])
    by_name = {name: (kind, optional) for name, kind, optional in new}
    broken = [
        f"parameter {name}"
        for name, kind, optional in old
        if name not in by_name or by_name[name][0] != kind or (optional and not by_name[name][1])
    ]
    broken += [f"{name} is required" for name, _, optional in new if not optional and name not in {p[0] for p in old}]
    by_place = "POSITIONAL_OR_KEYWORD"
    if [p[0] for p in old if p[1] == by_place] != [p[0] for p in new if p[1] == by_place][
        : sum(p[1] == by_place for p in old)
    ]:
        broken.append("the order of its parameters")
    return broken


@pytest.mark.tensorflow
def test_nothing_public_is_lost() -> None:
    assert not lost(RECORDED, public_surface.record())


@pytest.mark.tensorflow
def test_nothing_public_is_lost_in_the_wheel(tmp_path: Path, wheel: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-P", public_surface.__file__]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not lost(RECORDED, json.loads(done.stdout))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s["names"].pop("lxmert_export.export"), "lxmert_export.export"),
        (lambda s: s["names"]["lxmert_export.export"]["parameters"].pop(1), "parameter checkpoint"),
        (lambda s: s["names"]["lxmert_export.export"]["parameters"].reverse(), "the order"),
        (lambda s: s["names"]["lxmert_export.export"].update(kind="value"), "a function is a value"),
        (lambda s: s["names"]["lxmert_export.verify"]["parameters"].append(["new", "KEYWORD_ONLY", False]), "new is"),
        (lambda s: s["commands"].pop("onnx"), "onnx checkpoint"),
        (lambda s: s["commands"]["parity"]["no_laws"].clear(), "parity no_laws"),
    ],
)
def test_what_would_break_a_user_is_told(change: Any, told: str) -> None:
    changed = json.loads(json.dumps(RECORDED))
    change(changed)
    assert any(told in line for line in lost(RECORDED, changed))
