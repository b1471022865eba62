"""The page and plot of `make speed`, from a report's JSON alone."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from benchmarks.speed_page import page, plot
from parity_tests.benching.sample_report import sample_report

pytestmark = pytest.mark.quick


def test_ratios_to_transformers_stand_beside_those_to_the_best_peer() -> None:
    """An int8 peer is no rival of fp32, however fast."""
    report = sample_report().to_dict()
    names = [one["name"] for one in report["contestants"]]
    report["contestants"][1].update(kind="peer", precision="int8")
    report["contestants"][2].update(kind="peer")
    renamed = json.loads(json.dumps(report).replace(f'"{names[2]}"', '"transformers"'))
    (row,) = [
        line for line in page(renamed).splitlines() if line.startswith("| vqa-fp32, fp32 | ") and line.count("|") == 7
    ]
    assert row == "| vqa-fp32, fp32 | 1.80 | 1.80 | 1.80 | 1.80 | 1.00 |"


def test_the_page_holds_every_contestant_and_the_ratio_to_the_best_peer() -> None:
    report = sample_report().to_dict()
    for one in report["contestants"][1:]:
        one["kind"] = "peer"
    text = page(report)
    for one in report["contestants"]:
        # two settings, the workload, its own row, and an artifact's ratios
        assert text.count(f"\n| {one['name']}") == (5 if one["kind"] == "artifact" else 4)
    ratios = []
    for batch in (1, 8):
        medians = {r["contestant"]: r["latency_ms"]["p50"] for r in report["results"] if r["batch"] == batch}
        ours, *peers = medians.values()
        ratios.append(min(peers) / ours)
    assert f"| vqa-fp32, fp32 | {ratios[0]:.2f} | {ratios[1]:.2f} | 1.00 |" in text
    drawn = ElementTree.fromstring(plot(report))
    assert len(drawn.findall(".//{*}rect")) == 9
