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
    """``facts`` say what was measured on which machine; ``steps`` hold status, seconds, and result or reason of each."""

    path: Path
    facts: dict[str, Any]
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """The steps that failed, with the reason."""
        return {name: step["reason"] for name, step in self.steps.items() if step["status"] == FAILED}

    def record(self, name: str, step: dict[str, Any]) -> None:
        """Adds a step, and writes both files again."""
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
    """Opens results to continue them; unless ``anew``, exits with one line if versions or machine differ."""
    if anew or not path.is_file():
        return Results(path, facts)
    values = json.loads(path.read_text(encoding="utf-8"))
    steps = values.pop("steps")
    other = [f"{name} was {values.get(name)}" for name in facts if values.get(name) != facts[name]]
    if other:
        sys.exit(
            f"{path}: has results of another check ({'; '.join(other)}): move the file away, or give --anew to replace it"
        )
    return Results(path, facts, steps)
