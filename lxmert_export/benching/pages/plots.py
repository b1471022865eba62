"""The plots of a bench, as SVG: latency bars from median to p99, throughput over batch, and the workload."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lxmert_export.benching.pages.words import Facts
from lxmert_export.parity.pages.overview import number, printable

WIDTH, NAMES, FIGURES = 760, 230, 110  # pixels: the whole, the names at the left, the figures at the right
ROW, BAR, HEAD, GAP = 24, 14, 26, 10
PLOT_HEIGHT, LEFT = 260, 60
LONGEST_NAME = 34  # letters; the whole name is in the tables
SERIES = 8  # kinds of lines in the style; more contestants begin again


@dataclass(frozen=True)
class Bar:
    """A bar: its name, its length, where its whisker ends, its figure in words, and whether its contestant is wrong."""

    name: str
    value: float
    whisker: float
    figure: str
    wrong: bool = False


@dataclass(frozen=True)
class Plot:
    """A drawn plot: its title, its height in pixels, and its SVG elements."""

    title: str
    height: float
    body: str

    def svg(self) -> str:
        """Returns it for a page that has the style."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {self.height:g}" role="img"'
            f' aria-label="{_safe(self.title)}">{self.body}</svg>'
        )

    def file(self, style: str) -> str:
        """Returns it as a file of its own, which is light wherever it is shown."""
        light = f"svg {{ color-scheme: light; background: white; }}\n{style}"
        return self.svg().replace(">", f"><style>{light}</style>", 1) + "\n"


def stacked(title: str, plots: Sequence[Plot]) -> Plot:
    """Returns plots one below the other, as one."""
    body, height = "", 0.0
    for plot in plots:
        body += f'<g transform="translate(0 {height:g})">{plot.body}</g>'
        height += plot.height + GAP
    return Plot(title, height, body)


def latency_plot(report: Facts, setting: Sequence[int]) -> Plot:
    """Returns a bar for each contestant at a setting (batch, text, objects): its median, with a whisker to its p99."""
    bars = [
        Bar(
            result["contestant"], result["latency_ms"]["p50"], result["latency_ms"]["p99"],
            f"{number(result['latency_ms']['p50'])} ms", not result["agreement"]["agrees"],
        )
        for result in report["results"]
        if setting_of(result) == tuple(setting)
    ]  # fmt: skip
    return _bars(f"Latency at {in_words(setting)}: median, with a line to p99", bars)


def workload_plot(report: Facts) -> Plot:
    """Returns a bar for each contestant: the questions of the workload that it answers a second."""
    bars = [
        Bar(
            result["contestant"], result["questions_a_second"]["median"], result["questions_a_second"]["high"],
            f"{number(result['questions_a_second']['median'])} /s", not result["agreement"]["agrees"],
        )
        for result in report["workload"]["results"]
    ]  # fmt: skip
    return _bars("Questions of the workload a second", bars)


def throughput_plots(report: Facts) -> list[Plot]:
    """Returns a plot of rows a second over batch for each number of tokens and objects that has several batches."""
    plots = []
    by_sizes = sorted(report["results"], key=lambda result: setting_of(result)[1:])
    for (text, objects), results in groupby(by_sizes, key=lambda result: setting_of(result)[1:]):
        lines: dict[str, list[tuple[int, float]]] = {}
        for result in sorted(results, key=lambda one: one["batch"]):
            lines.setdefault(result["contestant"], []).append((result["batch"], result["rows_a_second"]))
        if all(len(points) > 1 for points in lines.values()):
            ordered = {one["name"]: lines[one["name"]] for one in report["contestants"]}
            plots.append(_lines(f"Rows a second over batch, at {text} tokens, {objects} objects", ordered))
    return plots


def setting_of(result: Facts) -> tuple[int, int, int]:
    """Returns the batch, text and objects of a result."""
    return result["batch"], result["text"], result["objects"]


def in_words(setting: Sequence[int]) -> str:
    """Returns a setting in words."""
    batch, text, objects = setting
    return f"batch {batch}, {text} tokens, {objects} objects"


def _bars(title: str, bars: Sequence[Bar]) -> Plot:
    room = WIDTH - NAMES - FIGURES
    scale = room / max((bar.whisker for bar in bars), default=1.0)
    height = HEAD + ROW * len(bars) + GAP
    body = [_text(0, 15, title, "title")]
    for place, bar in enumerate(bars):
        top = HEAD + ROW * place
        middle = top + ROW / 2
        length, end = bar.value * scale, bar.whisker * scale
        kind = "bar wrong" if bar.wrong else "bar"
        body += [
            _text(NAMES - 8, middle + 4, _short(bar.name), "name", anchor="end"),
            f'<rect class="{kind}" x="{NAMES}" y="{top + (ROW - BAR) / 2:g}" width="{length:.1f}" height="{BAR}" rx="2"'
            f' data-value="{bar.value!r}"><title>{_safe(bar.name)}: {_safe(bar.figure)}</title></rect>',
            f'<path class="whisker" d="M{NAMES + length:.1f} {middle:g}H{NAMES + end:.1f}m0 -4v8"/>',
            _text(NAMES + end + 8, middle + 4, bar.figure + (" WRONG" if bar.wrong else ""), "figure"),
        ]
    return Plot(title, height, "".join(body))


def _lines(title: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Plot:
    batches = sorted({batch for points in lines.values() for batch, _ in points})
    top = max(rate for points in lines.values() for _, rate in points)
    room = WIDTH - LEFT - NAMES
    step = room / max(len(batches) - 1, 1)

    def across(batch: int) -> float:
        return LEFT + step * batches.index(batch)

    def up(rate: float) -> float:
        return HEAD + PLOT_HEIGHT * (1 - rate / top)

    body = [_text(0, 15, title, "title"), f'<path class="axis" d="M{LEFT} {HEAD}V{HEAD + PLOT_HEIGHT}H{LEFT + room}"/>']
    for share in (0.0, 0.5, 1.0):
        body.append(_text(LEFT - 8, up(share * top) + 4, number(share * top), "figure", anchor="end"))
    for batch in batches:
        body.append(_text(across(batch), HEAD + PLOT_HEIGHT + 18, f"batch {batch}", "figure", anchor="middle"))
    heights = _apart([up(points[-1][1]) for points in lines.values()])
    for place, ((name, points), height) in enumerate(zip(lines.items(), heights, strict=True)):
        corners = " ".join(f"{across(batch):.1f},{up(rate):.1f}" for batch, rate in points)
        kind = f"series-{place % SERIES}"
        body.append(f'<polyline class="line {kind}" points="{corners}"><title>{_safe(name)}</title></polyline>')
        body += [
            f'<circle class="dot {kind}" cx="{across(batch):.1f}" cy="{up(rate):.1f}" r="3.5" data-value="{rate!r}">'
            f"<title>{_safe(name)}, batch {batch}: {_safe(number(rate))} a second</title></circle>"
            for batch, rate in points
        ]
        end = f"{across(points[-1][0]):.1f} {up(points[-1][1]):.1f}"
        body.append(f'<path class="leader" d="M{end}L{LEFT + room + 10:g} {height:.1f}"/>')
        body.append(_text(LEFT + room + 14, height + 4, _short(name), "name"))
    return Plot(title, HEAD + PLOT_HEIGHT + 30, "".join(body))


def _apart(heights: Sequence[float]) -> list[float]:
    """Moves labels down until none covers another; the order is kept."""
    placed: dict[int, float] = {}
    lowest = float("-inf")
    for place in sorted(range(len(heights)), key=lambda one: heights[one]):
        lowest = placed[place] = max(heights[place], lowest + 15)
    over = max(lowest - (HEAD + PLOT_HEIGHT), 0.0)
    return [placed[place] - over for place in range(len(heights))]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{_safe(text)}</text>'


def _short(name: str) -> str:
    """The end of a long name: of a path that is the part that tells."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def _safe(text: str) -> str:
    return html.escape(printable(text))
