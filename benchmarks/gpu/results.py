"""The results of a check on one GPU: a JSON file that grows with every step, and its page."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.page import page
from lxmert_export.files.atomic_files import replace_files

DONE, FAILED = "done", "failed"


@dataclass
class Results:
    """``facts`` say what was measured on what; ``steps`` hold each step's status, seconds, and what it gave or why it failed."""

    path: Path
    facts: dict[str, Any]
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Steps that failed, and why."""
        return {name: step["reason"] for name, step in self.steps.items() if step["status"] == FAILED}

    def record(self, name: str, step: dict[str, Any]) -> None:
        """Adds a step, and writes both files anew."""
        self.steps[name] = step
        self.write()

    def write(self) -> None:
        """Writes both files, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        values = {**self.facts, "steps": self.steps}
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        files = {self.path.name: text, self.path.with_suffix(".md").name: page(values)}
        replace_files(self.path.parent, {name: content.encode() for name, content in files.items()})


def open_results(path: Path, facts: dict[str, Any], *, anew: bool) -> Results:
    """Goes on with what a file holds; exits with one line where it is of other versions or another machine, unless ``anew``."""
    if anew or not path.is_file():
        return Results(path, facts)
    values = json.loads(path.read_text(encoding="utf-8"))
    steps = values.pop("steps")
    other = [f"{name} was {values.get(name)}" for name in facts if values.get(name) != facts[name]]
    if other:
        sys.exit(f"{path}: holds results of something else ({'; '.join(other)}): keep them elsewhere, or give --anew")
    return Results(path, facts, steps)
