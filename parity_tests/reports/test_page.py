"""The HTML report in a real browser: it renders, its squares open, and its figures are the JSON's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lxmert_export.parity.figures import HISTOGRAM_EDGES
from lxmert_export.parity.pages.html import html_page
from lxmert_export.parity.pages.overview import matrix_of, number, size
from parity_tests.fixtures.sample_reports import NASTY, full_report, nothing_compared, passing_report, unproven_report
from parity_tests.reports.browser import DESKTOP, PHONE, started

REPORTS: dict[str, dict[str, Any]] = {
    "full": full_report().to_dict(),
    "pass": passing_report().to_dict(),
    "nothing": nothing_compared().to_dict(),
    "unproven": unproven_report().to_dict(),
}
FULL = REPORTS["full"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as launched:
        yield launched


class Opened:
    """A page of a report, and everything it complained of or asked the network for."""

    def __init__(self, browser: Browser, folder: Path, report: dict[str, Any], **options: Any) -> None:
        self.page: Page = browser.new_page(**{"viewport": DESKTOP, **options})
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        (folder / "report.html").write_text(html_page(report), encoding="utf-8")
        self.page.goto((folder / "report.html").as_uri())

    def _asked(self, address: str) -> None:
        if not address.startswith(("file:", "data:")):
            self.complaints.append(address)

    def square(self, runner: str, against: str) -> Any:
        return self.page.locator(f'.matrix button.square[data-runner="{runner}"][data-against="{against}"]')

    @property
    def details(self) -> Any:
        return self.page.locator("dialog#details")


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    shown = Opened(browser, tmp_path, FULL)
    yield shown
    assert shown.complaints == []
    shown.page.close()


def test_every_kind_of_report_renders_in_silence(browser: Browser, tmp_path: Path) -> None:
    for report in REPORTS.values():
        for scheme in ("light", "dark"):
            for viewport in (DESKTOP, PHONE):
                shown = Opened(browser, tmp_path, report, viewport=viewport, color_scheme=scheme)
                verdict = shown.page.locator(".verdict")
                expect(verdict).to_contain_text("✓ passed" if report["passed"] else "✕ FAILED")
                expect(verdict).to_contain_text(report["summary"].partition(": ")[2][:40])
                wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
                assert len(set(shown.page.evaluate(wide))) == 1, "the page scrolls sideways"
                assert shown.complaints == []
                shown.page.close()


def test_the_page_needs_no_network_and_lets_none_be_asked(opened: Opened) -> None:
    """What it forbids itself is told on the console: the check that hears complaints is heard here."""
    asked = "fetch('https://example.invalid/').then(() => 'answered', () => 'refused')"
    assert opened.page.evaluate(asked) == "refused"
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    opened.complaints.clear()


def test_text_of_a_report_stays_text(opened: Opened) -> None:
    assert opened.page.evaluate("window.hacked") is None
    expect(opened.page.locator("#not-run")).to_contain_text("</script><script>window.hacked = true</script> <!-- `x`")
    assert opened.page.locator("#not-run").inner_text().count("{{report}}") == NASTY.count("{{report}}") * 3


def test_why_a_report_without_a_failed_cell_failed_is_told(browser: Browser, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, REPORTS["unproven"])
    expect(shown.page.locator("#failures li")).to_have_text(
        "no proof for onnx-fp16: computed only in float32 by a CPU, which does not count alone"
    )
    shown.page.close()
    shown = Opened(browser, tmp_path, REPORTS["pass"])
    expect(shown.page.locator("#failures")).to_have_count(0)
    shown.page.close()


def test_every_square_shows_the_worst_score_of_the_json(opened: Opened) -> None:
    squares = matrix_of(FULL).squares
    assert opened.page.locator(".matrix button.square").count() == len(squares)
    for (runner, against), square in squares.items():
        shown = opened.square(runner, against)
        score = square.worst["score"]
        assert shown.get_attribute("data-score") == ("none" if score is None else javascript(score))
        assert shown.locator("b").inner_text() == ("FAIL" if square.failed else number(score))
    for runner in FULL["runners"]:
        row = opened.page.locator(".matrix tbody tr").filter(has_text=runner["name"][:9]).first
        expect(row.locator(".chip")).to_contain_text(runner["status"].replace("-", " "))
    expect(opened.page.locator(".matrix tbody tr").nth(3).locator(".not-run").first).to_have_text("built not run")


def test_a_square_opens_by_mouse_and_its_figures_are_the_jsons(opened: Opened) -> None:
    cells = [cell for cell in FULL["cells"] if (cell["runner"], cell["against"]) == ("onnx-fp32", "float64")]
    opened.square("onnx-fp32", "float64").click()
    expect(opened.details).to_be_visible()
    expect(opened.details.locator("h2")).to_have_text("onnx-fp32 against float64")
    assert opened.details.locator("button.square").count() == len(cells)
    for cell in cells:
        button = opened.details.get_by_label(f"{cell['output']}, {cell['family']} inputs:")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        assert button.locator("b").inner_text() == number(cell["score"])
        shown = dict(
            zip(*(opened.details.locator(f".cell .facts {tag}").all_inner_texts() for tag in ("dt", "dd")), strict=True)
        )
        assert float(shown["score"]) == pytest.approx(cell["score"], rel=0.01)
        assert float(shown["error RMS"]) == pytest.approx(cell["error_rms"], rel=0.06)
        assert float(shown["ULP max"]) == pytest.approx(cell["figures"]["ulp_max"], rel=0.06)
        assert shown["values"] == f"{cell['values']:,}"
        assert ("flips" in shown) is (cell["figures"]["choices"] is not None)
        bars = opened.details.locator("svg .bar")
        expect(bars.first).to_be_attached()
        drawn = [int(bar.get_attribute("data-count")) for bar in bars.all()]
        assert drawn == list(cell["figures"]["histogram"]) and len(drawn) == len(HISTOGRAM_EDGES) - 1
        worst = opened.details.locator(".cell table.narrow tbody tr")
        assert worst.count() == len(cell["figures"]["worst_inputs"])


def test_a_bars_title_names_the_bin_that_numpy_counted(opened: Opened) -> None:
    opened.square("onnx-fp32", "float64").click()
    titles = opened.details.locator("svg .bar title").all_text_contents()
    assert titles[0].startswith("below 1/4096 floors") and titles[1].startswith("1/4096 to 1/2048")
    assert titles[13].startswith("1 to 2 floors") and titles[-1].startswith("256 and above")
    assert [HISTOGRAM_EDGES[1], HISTOGRAM_EDGES[13], HISTOGRAM_EDGES[-2]] == [1 / 4096, 1, 256]


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_square_opens_by_key_and_gives_the_focus_back(opened: Opened, key: str) -> None:
    opened.square("onnx-fp32", "float64").focus()
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowDown")
    expect(opened.square("faulty", "float64")).to_be_focused()
    opened.page.keyboard.press(key)
    expect(opened.details).to_be_visible()
    expect(opened.details.get_by_label("Close", exact=True)).to_be_focused()
    expect(opened.details.locator(".reason")).to_have_text("missing output")
    opened.page.keyboard.press("Escape")
    expect(opened.details).to_be_hidden()
    expect(opened.square("faulty", "float64")).to_be_focused()


def test_all_of_the_page_is_reached_by_the_tab_key(opened: Opened) -> None:
    opened.page.keyboard.press("Tab")
    expect(opened.page.locator(".skip")).to_be_focused()
    reached = set()
    for _ in range(150):
        opened.page.keyboard.press("Tab")
        reached.add(opened.page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert {"theme", "square heat-fail", "sort", "SUMMARY", "scroll"} <= reached


def test_a_heading_sorts_up_and_down(opened: Opened) -> None:
    def shown() -> list[str]:
        return opened.page.locator("#runners tbody td:nth-child(7)").all_inner_texts()

    heading = opened.page.locator("#runners").get_by_role("columnheader", name="size")
    known = sorted((one["bytes"] for one in FULL["runners"] if one["bytes"]), reverse=True)
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert shown() == [*map(size, known), "–"]
    heading.get_by_role("button").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert shown() == [*map(size, sorted(known)), "–"]  # what has none stays last


def test_a_row_names_its_runtime_and_device(opened: Opened) -> None:
    """As far as they are known: reports of earlier versions lack them."""
    shown = opened.page.locator("#runners tbody td:nth-child(5)").all_inner_texts()
    known = [one["runtime"] + " on " + one["device"] if "runtime" in one else "" for one in FULL["runners"]]
    assert sorted(shown) == sorted(known) and "tensorrt on GPU" in known


def test_the_grid_of_a_square_sorts_by_a_family(opened: Opened) -> None:
    opened.square("onnx-fp32", "tflite-fp32").click()
    opened.details.get_by_role("columnheader", name="plain").get_by_role("button").click()
    scores = [float(text) for text in opened.details.locator("tbody td:nth-child(2) b").all_inner_texts()]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)


def test_the_drift_has_a_point_for_each_layer(opened: Opened) -> None:
    (divergence,) = FULL["divergences"]
    chart = opened.page.locator("#drift svg")
    points = [point.get_attribute("data-score") for point in chart.locator(".point").all()]
    assert points == ["none" if row["score"] is None else javascript(row["score"]) for row in divergence["curve"]]
    assert chart.locator(".name").all_text_contents() == [row["layer"] for row in divergence["curve"]]
    expect(chart.locator(".found")).to_have_text("language.1")
    assert [("FAIL" in str(point.get_attribute("class"))) for point in chart.locator(".point").all()] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_laws_answers_sizes_and_provenance_are_there(opened: Opened) -> None:
    page = opened.page
    expect(page.locator("#laws tbody tr")).to_have_count(2)
    expect(page.locator("#laws")).to_contain_text("thread counts (one thread alone)")
    expect(page.locator("#failures")).to_contain_text("tensorrt is required")
    expect(page.locator("#failures")).to_contain_text("the baseline's 0.50")
    expect(page.locator("#failures tbody tr")).to_have_count(sum(cell["status"] == "FAIL" for cell in FULL["cells"]))
    answered = {one["runner"]: one for one in FULL["decisions"]}
    for row in page.locator("#decisions > .scroll tbody tr").all():
        one = answered[row.locator("th").inner_text()]
        assert row.locator("td").nth(0).inner_text() == "held-out questions"
        assert row.locator("td").nth(2).get_attribute("data-value") == javascript(one["accuracy"])
    expect(page.locator("#runners svg")).to_have_count(2)
    expect(page.locator("#runners svg").first.locator(".mark")).to_have_count(3)
    expect(page.locator("#runners svg").first.locator(".mark.FAIL")).to_have_count(1)
    expect(page.locator("#provenance")).to_contain_text("0.1.0")
    page.locator("#provenance summary").first.click()
    expect(page.locator("#provenance details").first).to_contain_text("ab" * 32)


def test_the_theme_follows_the_system_until_one_is_chosen(browser: Browser, tmp_path: Path) -> None:
    def back() -> str:
        return str(shown.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    followed, chosen = {}, {}
    for scheme in ("light", "dark"):
        shown = Opened(browser, tmp_path, FULL, color_scheme=scheme)
        followed[scheme] = back()
        button = shown.page.locator(".theme")
        for theme in ("light", "dark"):
            button.click()
            expect(button).to_have_text(f"Theme: {theme}")
            chosen[scheme, theme] = back()
        shown.page.close()
    assert followed["light"] != followed["dark"]
    assert chosen == {(scheme, theme): followed[theme] for scheme in followed for theme in followed}


def test_a_chosen_theme_is_kept(opened: Opened) -> None:
    opened.page.locator(".theme").click()
    opened.page.reload()
    expect(opened.page.locator(".theme")).to_have_text("Theme: light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_background(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    """WCAG AA: 4.5 to 1 for what is written in a square, on a chip or in a note."""
    shown = Opened(browser, tmp_path, FULL, color_scheme=scheme)
    for kind in (
        ".square.heat-0",
        ".square.heat-1",
        ".chip.pass",
        ".chip.FAIL",
        ".chip.skipped",
        ".card .note",
        ".card td",
    ):
        assert shown.page.locator(kind).count(), kind
        assert shown.page.evaluate(CONTRAST, kind) >= 4.5, kind
    shown.page.close()


def test_motion_is_left_out_where_it_is_not_wanted(browser: Browser, tmp_path: Path) -> None:
    moved = {}
    for wish in ("reduce", "no-preference"):
        shown = Opened(browser, tmp_path, FULL, reduced_motion=wish)
        shown.square("onnx-fp32", "float64").click()
        moved[wish] = shown.page.evaluate("getComputedStyle(document.getElementById('details')).animationName")
        shown.page.close()
    assert moved == {"reduce": "none", "no-preference": "slide"}


def test_details_fit_a_phone(browser: Browser, tmp_path: Path) -> None:
    shown = Opened(browser, tmp_path, FULL, viewport=PHONE, reduced_motion="reduce")
    for against in ("float64", "onnx-fp32"):
        shown.square("faulty", against).click()
        expect(shown.details).to_be_visible()
        assert shown.details.evaluate("drawer => drawer.scrollWidth <= drawer.clientWidth && drawer.clientWidth <= 390")
        shown.details.get_by_label("Close", exact=True).click()
    shown.page.close()


def test_these_tests_see_a_page_that_fails(browser: Browser, tmp_path: Path) -> None:
    """A report without its cells' figures is no report: the page says so on the console, and the tests hear it."""
    broken = copy.deepcopy(FULL)
    del broken["cells"][0]["kind"], broken["runners"]
    assert Opened(browser, tmp_path, broken).complaints


def javascript(value: float) -> str:
    """A number as JavaScript writes it."""
    return str(int(value)) if value == int(value) else repr(value)


CONTRAST = """kind => {
  const channels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  const light = (colour) => channels(colour).reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const node = document.querySelector(kind);
  let behind = node;
  while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const both = [light(getComputedStyle(node).color), light(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a);
  return (both[0] + 0.05) / (both[1] + 0.05);
}"""
