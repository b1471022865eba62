"""A column of a progress bar: how many are done, and how many a second."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text


class RateColumn(ProgressColumn):
    """For example ``2,048 of 447,793 questions, 103.2 a second``. What an earlier run did is not part of the rate."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Returns the text of a task."""
        speed = task.finished_speed or task.speed
        rate = "" if speed is None else f", {speed:,.1f} a second"
        return Text(f"{task.completed:,.0f} of {task.total or 0:,.0f} {self._unit}{rate}")
