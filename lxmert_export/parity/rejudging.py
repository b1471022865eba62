"""Reads a JSON report, judges it again under other thresholds, and compares it with a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lxmert_export.errors import ArtifactError
from lxmert_export.files.json_files import check_schema, read_json
from lxmert_export.parity.cells import Cell
from lxmert_export.parity.decisions import SCENES, Decisions, Tally, percent
from lxmert_export.parity.divergence import Divergence, LayerDrift
from lxmert_export.parity.figures import Choices, Figures, WorstInput
from lxmert_export.parity.law_slice import TOGETHER
from lxmert_export.parity.laws import DETERMINISM
from lxmert_export.parity.prediction import Prediction
from lxmert_export.parity.report import FORMAT_VERSION, LawNotRun, ParityReport, RunnerFacts

# Scores of one artifact vary a little between machines, and scores below one floor do not tell artifacts apart. A regression is
# a score above BASELINE_MARGIN x the baseline's; baselines below LEAST_BASELINE count as LEAST_BASELINE.
BASELINE_MARGIN = 1.5
LEAST_BASELINE = 0.5
SCHEMA = "parity/report.schema.json"
DETERMINED = f"law: {DETERMINISM}"


def read_report(path: str | Path) -> ParityReport:
    """Reads a report that ``--json`` wrote. ``ArtifactError``: it is damaged, something else, or not as its schema says."""
    try:
        values = read_json(Path(path))
        if not isinstance(values, dict) or values.get("format") != FORMAT_VERSION:
            raise ArtifactError(f"{path}: is not a parity report of this version; write it again: parity --json {path}")
        check_schema(values, SCHEMA)
        return _report(values)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"{path}: damaged parity report: {reason}") from error


def judge_again(report: ParityReport, threshold: float | None, pair_threshold: float | None) -> ParityReport:
    """Returns the same measurements judged under other thresholds; nothing is run.

    ``pair_threshold`` is for pairs and laws, ``threshold`` for all other cells; None keeps the threshold of each cell, and so
    does determinism. A cell that failed for another reason than its score still fails. Decisions do not change: their margins
    belong to the run.
    """

    def again(cell: Cell) -> Cell:
        limit = pair_threshold if cell.kind in ("pair", "law") else threshold
        if limit is None or cell.against == DETERMINED:
            return cell
        if cell.reason is not None or cell.score is None:
            return replace(cell, threshold=limit)
        return replace(cell, threshold=limit, status="pass" if cell.score <= limit else "FAIL")

    return replace(report, cells=tuple(map(again, report.cells)))


def regressions(report: ParityReport, baseline: ParityReport) -> tuple[str, ...]:
    """Returns a line for each way in which a report is worse than a baseline: a missing result, a score or an accuracy.

    Runners, outputs and families are matched by name. ``ArtifactError``: the two reports have no cell in common.
    """
    found = {_key(cell): cell for cell in report.cells}
    known = {_key(cell): cell for cell in baseline.cells if cell.status == "pass"}
    if not found.keys() & known.keys():
        raise ArtifactError("the baseline has no cell in common with this report: its runners have different names")
    # A gate and `verify` try a slice of the laws, where `parity` tries each by itself: their cells have other names.
    sliced = [any(TOGETHER in cell.against for cell in some.cells) for some in (report, baseline)]
    tried = {cell.runner for cell in report.cells if cell.kind == "law"} if sliced[0] != sliced[1] else set()
    compared = {
        key: cell for key, cell in known.items() if key in found or cell.kind != "law" or cell.runner not in tried
    }
    lines = [line for key, cell in compared.items() if (line := _worse(found.get(key), cell))]
    answered = {(decided.runner, decided.arithmetic, decided.inputs): decided.total for decided in report.decisions}
    for decided in baseline.decisions:
        now, before = answered.get((decided.runner, decided.arithmetic, decided.inputs)), decided.total
        where = f"{decided.runner} ({decided.arithmetic}), {decided.asked}"
        if now is None:
            lines.append(f"{where}: not asked here, but asked for the baseline")
        elif now.correct * before.questions < before.correct * now.questions:
            share = percent(before.correct, before.questions)
            lines.append(f"{where}: accuracy {percent(now.correct, now.questions)} is below the baseline's {share}")
    return tuple(lines)


def _worse(cell: Cell | None, known: Cell) -> str | None:
    where = f"{known.runner} against {known.against}, {known.output}, {known.family} inputs"
    if cell is None:
        return f"{where}: not run here, but run for the baseline"
    limit = BASELINE_MARGIN * max(known.score or 0, LEAST_BASELINE)
    if cell.score is not None and cell.score <= limit and cell.reason is None:
        return None
    now = cell.reason or ("no finite score" if cell.score is None else f"score {cell.score:.3g}")
    return f"{where}: {now} is worse than the baseline's {known.score:.3g} (limit {limit:.3g})"


def _key(cell: Cell) -> tuple[str, ...]:
    """Identifies a cell in two reports; the order in which its pair was named does not matter."""
    names = sorted((cell.runner, cell.against)) if cell.kind == "pair" else (cell.runner, cell.against)
    return (*names, cell.output, cell.family, cell.arithmetic)


def _report(values: Mapping[str, Any]) -> ParityReport:
    return ParityReport(
        cells=tuple(map(_cell, values["cells"])),
        families_not_run=tuple(values["families_not_run"]),
        notes=tuple(values["notes"]),
        vouched=tuple(values["vouched"]),
        decisions=tuple(map(_decisions, values["decisions"])),
        not_run={runner: tuple(families) for runner, families in values["not_run"].items()},
        runners=tuple(map(_runner, values["runners"])),
        laws_not_run=tuple(LawNotRun(**law) for law in values["laws_not_run"]),
        required=tuple(values["required"]),
        regressions=tuple(values["regressions"]),
        divergences=tuple(map(_divergence, values["divergences"])),
        predictions=tuple(map(_prediction, values.get("predictions", ()))),
        provenance=values["provenance"],
    )


def _runner(values: Mapping[str, Any]) -> RunnerFacts:
    facts = {name: value for name, value in values.items() if name != "status"}  # which is derived
    return RunnerFacts(**{**facts, "settings": tuple(values.get("settings", ()))})


def _prediction(values: Mapping[str, Any]) -> Prediction:
    return Prediction(**{name: value for name, value in values.items() if name not in ("ratio", "status")})


def _cell(values: Mapping[str, Any]) -> Cell:
    """Raises ``ValueError`` if the cell's status or score contradicts its own figures."""
    cell = Cell(**{**values, "figures": None if values["figures"] is None else _figures(values["figures"])})
    where = f"the cell of {cell.runner} against {cell.against}, {cell.output}, {cell.family} inputs"
    passes = cell.reason is None and cell.score is not None and cell.score <= cell.threshold
    score = "none" if cell.score is None else f"{cell.score:g}"
    if passes != (cell.status == "pass"):
        raise ValueError(
            f"{where}: its status is {cell.status}, but its score is {score}, its limit {cell.threshold:g}"
        )
    if cell.score is None or cell.error_rms is None or not cell.floor:
        return cell
    if not math.isclose(cell.score, cell.error_rms / cell.floor, rel_tol=1e-6):
        raise ValueError(f"{where}: its score {score} is not its error ÷ its floor")
    return cell


def _figures(values: Mapping[str, Any]) -> Figures:
    return Figures(
        **{
            **values,
            "histogram": tuple(values["histogram"]),
            "worst_inputs": tuple(WorstInput(**worst) for worst in values["worst_inputs"]),
            "choices": None if values["choices"] is None else Choices(**values["choices"]),
        }
    )


def _divergence(values: Mapping[str, Any]) -> Divergence:
    return Divergence(**{**values, "curve": tuple(LayerDrift(**row) for row in values["curve"])})


def _decisions(values: Mapping[str, Any]) -> Decisions:
    margin = values["near_tie_margin"]
    return Decisions(
        values["runner"], values["arithmetic"], values["reason"],
        float("inf") if margin is None else margin,
        _tally(values),
        {name: _tally(tally) for name, tally in values["families"].items()},
        values.get("inputs", SCENES),  # reports of earlier versions hold nothing else
    )  # fmt: skip


def _tally(values: Mapping[str, Any]) -> Tally:
    return Tally(**{name: values[name] for name in Tally.__dataclass_fields__})
