"""The report of an evaluation: the scores of each set of answers, and each beside the first, question by question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxmert_export.data.questions.question_set import QuestionSet
from lxmert_export.scoring.comparing import Comparison
from lxmert_export.scoring.official import Scorer
from lxmert_export.scoring.scored import Scored

FORMAT_VERSION = 1
SCHEMA = "scoring/evaluation.schema.json"
ROUNDING = 1e-9  # points; a drop of exactly the limit passes, whatever rounding its mean suffered


@dataclass(frozen=True)
class Evaluated:
    """One set of answers.

    ``name``: as it was given. ``facts``: where the answers come from: a file, or an artifact with its runtime, precision and
    device. ``scored``: None if there are no true answers.
    """

    name: str
    facts: Mapping[str, Any]
    answers: Mapping[str, str]
    scored: Scored | None

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values; the answers themselves are left out."""
        return {
            "name": self.name,
            **self.facts,
            "scores": {} if self.scored is None else dict(self.scored.scores),
            "questions": {} if self.scored is None else dict(self.scored.questions),
        }


@dataclass(frozen=True)
class EvaluationReport:
    """All sets of answers to one set of questions. ``passed``: none scores more than ``max_drop`` points below the first.

    ``comparisons``: every other set beside the first. ``scorer``: None if there are no true answers. ``notes``: what was left
    out, and why.
    """

    questions: QuestionSet
    scorer: Scorer | None
    runners: tuple[Evaluated, ...]
    comparisons: tuple[Comparison, ...]
    max_drop: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no set of answers scores too much lower than the first."""
        return not self.dropped

    @property
    def dropped(self) -> list[Comparison]:
        """The comparisons that show a larger drop than allowed."""
        return [one for one in self.comparisons if self.drop_of(one) > (self.max_drop or 0) + ROUNDING]

    def drop_of(self, comparison: Comparison) -> float:
        """How many points lower the second scores, as the gate sees it; no drop without a gate."""
        if self.max_drop is None or comparison.difference is None:
            return float("-inf")
        return -comparison.difference.points

    @property
    def main(self) -> str | None:
        """The name of the score by which sets of answers are compared; None if nothing is scored."""
        scored = self.runners[0].scored
        return None if scored is None else scored.main

    def summary(self) -> str:
        """One line: who dropped too much, or the scores."""
        if self.dropped:
            worst = max(self.dropped, key=self.drop_of)
            more = f", and {len(self.dropped) - 1} more" if len(self.dropped) > 1 else ""
            return (
                f"{worst.second} scores {self.drop_of(worst):.2f} points less than {worst.first}, and {self.max_drop:g} are "
                f"allowed{more}"
            )
        count = f"{len(self.questions.questions):,} questions"
        if self.main is None:
            agreements = ", ".join(f"{one.second} {one.agreement:.2f} %" for one in self.comparisons)
            return f"{count} without true answers: agreement with {self.runners[0].name}: {agreements}"
        scores = ", ".join(f"{one.name} {one.scored.scores[self.main]:.2f} %" for one in self.runners if one.scored)
        return f"{self.main} of {count}: {scores}"

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON values; ``evaluation.schema.json`` describes them."""
        return {
            "format": FORMAT_VERSION,
            "passed": self.passed,
            "summary": self.summary(),
            "dataset": self.questions.dataset,
            "asked": {
                "file": str(self.questions.path),
                "format": self.questions.format,
                "count": len(self.questions.questions),
            },
            "scored_by": None if self.scorer is None else {"name": self.scorer.name, "file": str(self.scorer.truths)},
            "main": self.main,
            "max_drop": self.max_drop,
            "runners": [one.to_dict() for one in self.runners],
            "comparisons": [{**one.to_dict(), "passed": one not in self.dropped} for one in self.comparisons],
            "notes": list(self.notes),
        }
