"""A kill at any file operation leaves all of the old or all of the new, once the next run has cleaned up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parity_tests.artifact.kill_steps import WRITERS
from parity_tests.fixtures.command import ROOT

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_at_any_step_leaves_all_of_the_old_or_all_of_the_new(writer: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parity_tests.artifact.kill_steps", writer, str(tmp_path / "place")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) > 40 and sum(step["killed"] for step in steps) == len(steps) - 2
    for step in steps:
        assert step["left_after"] == [], step
        assert len(set(step["after"])) <= 1, step  # all old, all new, or nothing
        assert not step["overwrite"] or step["after"], step
        # What can be seen has never gone back: nothing new that was there is old or gone again.
        assert "new" not in step["found"] or set(step["after"]) == {"new"}, step
        # Where nothing could be seen there is nothing, so that the same command is not refused.
        assert step["overwrite"] or step["found"] or not step["after"], step
    assert all(step["after"] and not step["left"] for step in steps if not step["killed"])
    assert any(step["left"] for step in steps)  # there was something to clean up
