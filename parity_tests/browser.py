"""The browser that the HTML report is tested in: a Chromium on PATH, or the one that Playwright keeps.

    python -m parity_tests.browser     gets one where there is none, as `make test` does

Debian's package is taken where this may install it (as root, as CI is), and Playwright's own build elsewhere. Without either
the test says that it was skipped, and why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DEBIAN = ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "chromium-headless-shell")
PLAYWRIGHT = (sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
MEND = f"run '{Path(sys.executable).name} -m parity_tests.browser', or install Chromium as your system does"


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    on_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if on_path:
        return on_path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    # It names the full browser; what is installed is its headless shell, beside it.
    shells = sorted(own.parents[2].glob("chromium_headless_shell-*/*/*headless*shell*")) if len(own.parents) > 2 else []
    return next((str(path) for path in (own, *shells) if path.is_file()), None)


def main() -> None:
    """Installs one where there is none; says so where that cannot be done."""
    if find_browser():
        return
    ways = [PLAYWRIGHT]
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "--quiet"], check=False)
        ways.insert(0, DEBIAN)
    for command in ways:
        if subprocess.run(command, check=False).returncode == 0 and find_browser():
            return
    sys.stderr.write(f"no Chromium could be had: the test of the HTML report will be skipped; {MEND}\n")


if __name__ == "__main__":
    main()
