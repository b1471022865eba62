"""A parity report as Markdown, short enough for the summary of a GitHub step: the verdict first, then the tables behind it."""

from __future__ import annotations

from lxmert_export.parity.cells import REFERENCE
from lxmert_export.parity.decisions import asked_of, percent
from lxmert_export.parity.pages.glossary import read_glossary
from lxmert_export.parity.pages.markdown_parts import MOST_BYTES, fitted, plain, table
from lxmert_export.parity.pages.overview import (
    Facts,
    badness,
    failures_beside_cells,
    found,
    matrix_of,
    not_judged,
    number,
    ran_in,
    size,
)

SIGNS = {"pass": "✅ pass", "FAIL": "❌ FAIL", "skipped": "⏭️ skipped", "built-not-run": "⏸️ built, not run"}


def markdown_page(report: Facts, *, most_bytes: int = MOST_BYTES) -> str:
    """Returns the report in at most ``most_bytes`` of UTF-8. If lines do not fit, the last line says which were cut."""
    verdict = "✅ Parity passed" if report["passed"] else "❌ Parity FAILED"
    head = [f"## {verdict}", "", plain(report["summary"]), "", "[What the words mean](#words-of-this-report)", ""]
    sections = [
        ("Every runner against every other", _matrix(report)),
        ("Runners", _runners(report)),
        ("Failures", _failures(report)),
        ("Worst cells", _worst_cells(report)),
        ("Answers", _decisions(report)),
        ("Where it diverges", _divergences(report)),
        ("Not run", _not_run(report)),
        ("Notes", [f"- {plain(line)}" for line in report["notes"]]),
        ("Words of this report", [f"- **{word}**: {plain(meaning)}" for word, meaning in read_glossary().items()]),
    ]
    return fitted(head, sections, most_bytes)


def _failures(report: Facts) -> list[str]:
    failed = [cell for cell in report["cells"] if cell["status"] != "pass"]
    failed.sort(key=lambda cell: (cell["kind"] == "pair", -badness(cell)))  # pairs last: they do not say who is wrong
    rows = [
        (
            f"{cell['runner']} against {cell['against']}",
            cell["output"],
            f"{cell['family']}{_arithmetic(cell)}",
            found(cell),
        )
        for cell in failed
    ]
    beside = [f"- {plain(line)}" for line in failures_beside_cells(report)]
    return [*beside, *([""] if beside and rows else []), *table(("who", "output", "inputs", "what was found"), rows)]


def _matrix(report: Facts) -> list[str]:
    matrix = matrix_of(report)
    if not matrix.squares:
        return []
    numbers = {name: str(place) for place, name in enumerate(matrix.runners, 1)}
    rows = [
        (numbers[runner], runner, SIGNS[status], *(
            matrix.squares[runner, against].label if (runner, against) in matrix.squares else "·"
            for against in matrix.opponents
        ))
        for runner, status in matrix.runners.items()
    ]  # fmt: skip
    columns = ("", "runner", "status", *(numbers.get(name, name) for name in matrix.opponents))
    return [
        *table(columns, rows),
        "",
        "Worst score of each pair: RMS error ÷ noise floor. Column 1 is the runner of row 1, and so on.",
    ]


def _runners(report: Facts) -> list[str]:
    columns = ("runner", "status", "target", "runtime", "precision", "size")
    rows = [
        (
            facts["name"],
            SIGNS[facts["status"]],
            facts["target"],
            ran_in(facts),
            facts["precision"],
            size(facts["bytes"]),
        )
        for facts in report["runners"]
    ]
    return table(columns, rows)


def _worst_cells(report: Facts) -> list[str]:
    """For each runner, opponent, arithmetic and output, the family of inputs with the worst score."""
    worst: dict[tuple[str, ...], Facts] = {}
    for cell in report["cells"]:
        key = (cell["runner"], cell["against"], cell["arithmetic"], cell["output"])
        if key not in worst or badness(cell) > badness(worst[key]):
            worst[key] = cell
    ordered = sorted(worst.values(), key=lambda cell: cell["against"] != REFERENCE)
    rows = [
        (
            f"{cell['runner']} against {cell['against']}{_arithmetic(cell)}", cell["output"], cell["family"],
            SIGNS[cell["status"]], number(cell["score"]), f"{cell['threshold']:g}",
            number(cell["error_rms"]), number(cell["error_max"]), number(cell["floor"]),
        )
        for cell in ordered
    ]  # fmt: skip
    columns = ("who", "output", "inputs", "status", "score", "limit", "error RMS", "error max", "noise floor")
    return table(columns, rows)


def _decisions(report: Facts) -> list[str]:
    rows = [
        (
            f"{decided['runner']}{_arithmetic(decided)}", asked_of(decided["inputs"]), SIGNS[decided["status"]],
            percent(decided["correct"], decided["questions"]),
            percent(decided["reference_correct"], decided["questions"]),
            percent(decided["agreed"], decided["questions"] - decided["near_ties"]),
            f"{decided['near_ties']:,}", f"{decided['flips']:,}",
        )
        for decided in report["decisions"]
    ]  # fmt: skip
    return table(("runner", "asked", "status", "accuracy", "float64's", "agreement", "near-ties", "flips"), rows)


def _divergences(report: Facts) -> list[str]:
    rows = [
        (one["artifact"], one.get("layer") or "nothing jumps", one.get("family") or "–", number(one.get("score")))
        for one in report["divergences"]
    ]
    return table(("artifact", "first layer", "operators", "score"), rows)


def _not_run(report: Facts) -> list[str]:
    runners = [
        f"- {plain(facts['name'])}: {SIGNS[facts['not_judged']]} ({plain(facts['reason'] or 'no reason is known')})"
        for facts in not_judged(report)
    ]
    families = [
        f"- {plain(runner)}: {plain(', '.join(names))} inputs" for runner, names in report["not_run"].items() if names
    ]
    laws = [
        f"- {plain(law['runner'])}: the law of {plain(law['law'])} ({plain(law['reason'])})"
        for law in report["laws_not_run"]
    ]
    return [*runners, *families, *laws]


def _arithmetic(cell: Facts) -> str:
    return "" if cell["arithmetic"] == "native" else f" ({cell['arithmetic']})"
