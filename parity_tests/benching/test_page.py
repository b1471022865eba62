"""The HTML page of a bench in a real browser: it renders in silence, asks nothing of a network, and shows the JSON's figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, expect

from lxmert_export.benching.pages.html import bench_page, bench_style
from lxmert_export.benching.pages.plots import latency_plot, stacked, throughput_plots, workload_plot
from lxmert_export.parity.pages.overview import number
from parity_tests.benching.sample_report import NASTY, sample_report
from parity_tests.reports.browser import DESKTOP, PHONE, started

pytestmark = pytest.mark.browser

REPORT = sample_report().to_dict()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as launched:
        yield launched


def opened(browser: Browser, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """The page, and what it complained of or asked a network for."""
    page, complaints = browser.new_page(**{"viewport": DESKTOP, **options}), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None)
    (folder / "bench.html").write_text(bench_page(REPORT), encoding="utf-8")
    page.goto((folder / "bench.html").as_uri())
    return page, [one for one in complaints if not one.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_renders_in_silence(browser: Browser, tmp_path: Path, scheme: str, viewport: Any) -> None:
    page, complaints = opened(browser, tmp_path, viewport=viewport, color_scheme=scheme)
    expect(page.locator(".verdict.FAIL")).to_contain_text("answers something else than")
    wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert len(set(page.evaluate(wide))) == 1, "the page scrolls sideways"
    assert page.locator("svg.plot").count() == 4  # two settings, one throughput, one workload
    assert page.evaluate("[...document.querySelectorAll('svg.plot')].every(one => one.getBBox().width > 100)")
    assert complaints == []
    page.close()


def test_its_figures_are_the_jsons(browser: Browser, tmp_path: Path) -> None:
    page, _ = opened(browser, tmp_path)
    bars = page.locator("svg.plot").first.locator(".bar")
    first = [result for result in REPORT["results"] if result["batch"] == 1]
    assert [float(bar.get_attribute("data-value")) for bar in bars.all()] == [r["latency_ms"]["p50"] for r in first]
    assert [("wrong" in bar.get_attribute("class")) for bar in bars.all()] == [
        not r["agreement"]["agrees"] for r in first
    ]
    cells = page.locator("table").first.locator("tbody tr").first.locator("td")
    assert cells.nth(0).inner_text() == number(first[0]["latency_ms"]["p50"])
    expect(page.locator("body")).to_contain_text("not run: it needs a C++ compiler")
    page.close()


def test_text_of_a_report_stays_text(browser: Browser, tmp_path: Path) -> None:
    page, complaints = opened(browser, tmp_path)
    assert page.evaluate("window.hacked") is None
    assert NASTY in page.locator("table").first.inner_text()
    assert complaints == []
    page.close()


def test_plots_are_files_of_their_own_too() -> None:
    plots = [latency_plot(REPORT, (1, 20, 36)), *throughput_plots(REPORT), workload_plot(REPORT)]
    for plot in (*plots, stacked("all", plots)):
        drawn = ElementTree.fromstring(plot.file(bench_style()))
        assert drawn[0].tag.endswith("style") and bench_style() in str(drawn[0].text)
    assert len(drawn.findall(".//{*}rect")) == 6 and len(drawn.findall(".//{*}polyline")) == 3
