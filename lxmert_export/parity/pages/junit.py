"""A parity report as JUnit XML, which GitLab, Jenkins and GitHub's test reporters read."""

from __future__ import annotations

from itertools import groupby
from xml.etree import ElementTree

from lxmert_export.parity.decisions import asked_of
from lxmert_export.parity.pages.glossary import read_glossary
from lxmert_export.parity.pages.junit_parts import Element, add_suite, case_of, fail, finished, skipped_case
from lxmert_export.parity.pages.overview import Facts, failures_beside_cells, found, not_judged, number


def junit_xml(report: Facts) -> str:
    """Returns a suite for each runner and opponent, with a case for each output, input family and arithmetic.

    What was not run is a skipped case, not a passed one. Everything that makes the report fail is a failed case.
    """
    root = Element("testsuites", name="lxmert-export parity")
    for name, cases in (*_cell_suites(report), *_other_suites(report)):
        if cases:
            add_suite(root, name, cases)
    _add_glossary(root[-1])
    return finished(root)


def _add_glossary(suite: Element) -> None:
    """Puts the words of a report beside its verdict, as properties."""
    properties = Element("properties")
    for word, meaning in read_glossary().items():
        ElementTree.SubElement(properties, "property", name=f"glossary: {word}", value=meaning)
    suite.insert(0, properties)


def _cell_suites(report: Facts) -> list[tuple[str, list[Element]]]:
    def opponents(cell: Facts) -> tuple[str, str]:
        return cell["runner"], cell["against"]

    ordered = sorted(report["cells"], key=opponents)
    return [
        (f"{runner} against {against}", [_cell_case(cell) for cell in cells])
        for (runner, against), cells in groupby(ordered, opponents)
    ]


def _cell_case(cell: Facts) -> Element:
    case = case_of(f"{cell['output']}, {cell['family']} inputs ({cell['arithmetic']})")
    if cell["status"] != "pass":
        fail(case, found(cell), _figures(cell))
    return case


def _figures(cell: Facts) -> str:
    names = ("score", "threshold", "error_rms", "error_max", "floor", "reference_rms", "samples", "values")
    measured = {name: cell[name] for name in names}
    lines = [f"{name.replace('_', ' ')}: {_figure(value)}" for name, value in measured.items()]
    for worst in (cell["figures"] or {}).get("worst_inputs", ()):
        lines.append(f"worst input: batch {worst['batch']}, row {worst['row']}, error RMS {number(worst['error_rms'])}")
    return "\n".join(lines)


def _figure(value: float | int | None) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)


def _other_suites(report: Facts) -> list[tuple[str, list[Element]]]:
    """Suites of everything but cells: answers, runners and laws that were not run, and the verdict."""
    verdict = case_of("verdict")
    if not report["passed"]:
        fail(verdict, report["summary"], "\n".join(failures_beside_cells(report)))
    others = [_failed_case(line) for line in failures_beside_cells(report)]
    skipped = [
        skipped_case(facts["name"], facts["not_judged"], facts["reason"] or "no reason is known")
        for facts in not_judged(report)
    ]
    laws = [skipped_case(f"{law['runner']}: {law['law']}", "not run", law["reason"]) for law in report["laws_not_run"]]
    return [
        *((asked_of(inputs), [_decisions_case(one) for one in report["decisions"] if one["inputs"] == inputs])
          for inputs in dict.fromkeys(decided["inputs"] for decided in report["decisions"])),
        ("runners that were not judged", skipped),
        ("laws that were not run", laws),
        ("the report", [verdict, *others]),
    ]  # fmt: skip


def _decisions_case(decisions: Facts) -> Element:
    case = case_of(f"{decisions['runner']} ({decisions['arithmetic']})")
    if decisions["status"] != "pass":
        counts = ("questions", "near_ties", "agreed", "flips", "tied_flips", "correct", "reference_correct")
        lines = [f"{name.replace('_', ' ')}: {decisions[name]:,}" for name in counts]
        fail(case, decisions["reason"], "\n".join(lines))
    return case


def _failed_case(line: str) -> Element:
    case = case_of(line)
    fail(case, line, line)
    return case
