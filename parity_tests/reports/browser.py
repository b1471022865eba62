"""The browser that the HTML report is tested in: a Chromium on PATH, or the one that Playwright keeps.

    python -m parity_tests.reports.browser     gets one where there is none, as `make test` does

Debian's package is taken where this may install it (as root, as CI is), and Playwright's own build elsewhere. Without either
the test says that it was skipped, and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Error, Playwright, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A new browser asks its maker's hosts for updates; there is nothing to answer.
OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
DEBIAN = ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "chromium-headless-shell")
PLAYWRIGHT = (sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MEND = "run 'python -m parity_tests.reports.browser', or install Chromium as your system does"


def launch(playwright: Playwright) -> Browser:
    """A running browser; Playwright's ``Error`` where there is none, or it does not run."""
    on_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    return playwright.chromium.launch(executable_path=on_path, args=OPTIONS)


@contextmanager
def started() -> Iterator[Browser]:
    """A running browser for a test, which is skipped by name and reason where there is none."""
    with sync_playwright() as playwright:
        try:
            launched = launch(playwright)
        except Error as error:
            pytest.skip(f"no Chromium runs here ({error.message.splitlines()[0]}): {MEND}")
        yield launched
        launched.close()


def why_none() -> str | None:
    """Why no browser runs here; None where one does."""
    with sync_playwright() as playwright:
        try:
            launch(playwright).close()
        except Error as error:
            return error.message.splitlines()[0]
    return None


def main() -> None:
    """Installs one where there is none; says so where that cannot be done."""
    if why_none() is None:
        return
    ways = [PLAYWRIGHT]
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "--quiet"], check=False)
        ways.insert(0, DEBIAN)
    for command in ways:
        if subprocess.run(command, check=False).returncode == 0 and why_none() is None:
            return
    sys.stderr.write(f"no Chromium runs here ({why_none()}): the HTML report's tests will be skipped; {MEND}\n")


if __name__ == "__main__":
    main()
