"""Writes docs/report.png: the top of the HTML page of a report that ``lxmert-export parity --json`` wrote.

    lxmert-export parity demo-onnx-fp32 demo-onnx-fp16 demo-tflite-fp32 demo-tflite-int8 demo-tensorrt faulty \\
        --checkpoint demo --json report.json
    python docs/report_picture.py report.json

``faulty`` is a copy of demo-onnx-fp32 with another kind of GELU, planted with parity_tests/faults/onnx_faults.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from lxmert_export.parity.pages.html import html_page
from parity_tests.reports.browser import launch

PICTURE = Path(__file__).parent / "report.png"


def main() -> None:
    """Takes a picture of the page in a browser, from its top to the end of its matrix."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(html_page(report), encoding="utf-8")
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto(file.as_uri())
        box = page.locator("#matrix").bounding_box()
        assert box is not None
        page.screenshot(path=PICTURE, clip={"x": 0, "y": 0, "width": 1000, "height": box["y"] + box["height"] + 16})
        browser.close()


if __name__ == "__main__":
    main()
