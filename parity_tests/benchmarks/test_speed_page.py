"""The page and plot of `make speed`, from a report's JSON alone."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.speed_page import page, plot
from parity_tests.benching.sample_report import sample_report

pytestmark = pytest.mark.quick


def test_the_page_holds_every_contestant_and_the_ratio_to_the_best_peer() -> None:
    report = sample_report().to_dict()
    for one in report["contestants"][1:]:
        one["kind"] = "peer"
    text = page(report)
    for name in (one["name"] for one in report["contestants"]):
        assert text.count(f"\n| {name}") == 4  # two settings, the workload, and its own row
    first = {result["contestant"]: result["latency_ms"]["p50"] for result in report["results"] if result["batch"] == 1}
    ours, *peers = first.values()
    assert f"vqa-fp32 is {min(peers) / ours:.2f} times as fast as the best fp32 peer" in text
    drawn = ElementTree.fromstring(plot(report))
    assert len(drawn.findall(".//{*}rect")) == 9
