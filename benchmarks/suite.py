"""Writes benchmarks/suite.md: where the time of `make test` goes, of the log of a run that lists every duration.

make test TEST_ARGS="-n 2 --dist worksteal --durations=0" >suite.log; python -m benchmarks.suite suite.log ["WHAT TO ADD"]
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.measuring import machine

PAGE = Path(__file__).with_name("suite.md")
DURATION = re.compile(r"([\d.]+)s (?:call|setup|teardown) +parity_tests/(\w+)/(\w+)\.py::(.+)")
SUMMARY = re.compile(r"((?:\d+ failed, )?\d+ passed.*) in ([\d.]+)s")
SLOWEST = 20
BEFORE = "3,532 passed in 34.0 minutes, 64.4 minutes of both together"


def main() -> None:
    """Reads the log that is named, and writes the page."""
    PAGE.write_text(page(Path(sys.argv[1]).read_text(encoding="utf-8"), machine(), *sys.argv[2:]), encoding="utf-8")


def page(log: str, where: str, note: str = "") -> str:
    """Returns the page: seconds by folder, file and test, of both worker processes together."""
    folders, files, tests = (defaultdict[str, float](float) for _ in range(3))
    for seconds, folder, file, test in DURATION.findall(log):
        folders[folder] += float(seconds)
        files[f"{folder}/{file}"] += float(seconds)
        tests[f"{folder}/{file}::{test}"] += float(seconds)
    summary = SUMMARY.search(log)
    assert summary is not None, "the log holds no summary of pytest"
    outcome, wall = summary[1], float(summary[2])
    return f"""# Where the time of the test suite goes

Measured on {where}: {outcome} in {wall / 60:.1f} minutes of wall time, two worker processes,
{sum(folders.values()) / 60:.1f} minutes of both together. A worker that waits for another one's shared export counts
as busy. Before the tests shared exports and traces (9dbe590, on an Intel Xeon): {BEFORE}. The command is in
`benchmarks/suite.py`.
{note and chr(10) + note + chr(10)}
| folder | seconds |
|---|---|
{_rows(folders)}

| file | seconds |
|---|---|
{_rows(files, SLOWEST)}

| test | seconds |
|---|---|
{_rows(tests, SLOWEST)}
"""


def _rows(seconds: dict[str, float], most: int | None = None) -> str:
    largest = sorted(seconds.items(), key=lambda row: -row[1])[:most]
    return "\n".join(f"| `{name.replace('|', '/')}` | {value:.1f} |" for name, value in largest)


if __name__ == "__main__":
    main()
