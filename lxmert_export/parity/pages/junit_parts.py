"""What the JUnit XML of all reports is made of: suites of cases that passed, failed, or were skipped."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from lxmert_export.parity.pages.overview import printable

Element = ElementTree.Element


def finished(root: Element) -> str:
    """Returns the XML of all suites, with their counts added up."""
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, 0)) for suite in root)))
    root.set("time", "0")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def add_suite(root: Element, name: str, cases: list[Element]) -> None:
    """Adds a suite with its cases."""

    def count(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    attributes: dict[str, Any] = {"name": printable(name), "tests": str(len(cases)), "errors": "0", "time": "0"}
    suite = ElementTree.SubElement(root, "testsuite", attributes, failures=count("failure"), skipped=count("skipped"))
    for case in cases:
        case.set("classname", printable(name))
        suite.append(case)


def case_of(name: str) -> Element:
    """Returns a case that passed, as long as nothing else is said of it."""
    return Element("testcase", name=printable(name), time="0")


def skipped_case(name: str, status: str, reason: str) -> Element:
    """Returns a case that was not run."""
    case = case_of(name)
    ElementTree.SubElement(case, "skipped", message=printable(f"{status}: {reason}"))
    return case


def fail(case: Element, message: str, text: str, kind: str = "ParityError") -> None:
    """Says that a case failed."""
    ElementTree.SubElement(case, "failure", message=printable(message), type=kind).text = printable(text)


def say(case: Element, text: str) -> None:
    """Adds text that is shown with a case, passed or failed."""
    ElementTree.SubElement(case, "system-out").text = printable(text)
