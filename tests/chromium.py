"""Finds the browser of the browser tests; `python -m tests.chromium` gets one where there is none.

Debian's Chromium where this user may install packages, else the one that Playwright downloads.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    "There is no browser for the browser tests. Get one with `apt-get install chromium` or"
    " `playwright install chromium`, or name one in NHOOD_TEST_BROWSER; or leave these tests out"
    " with ARGS=\"-m 'not browser'\"."
)


def find_browser() -> str | None:
    """Give the browser's path: the named one, an installed one, or Playwright's; None: none."""
    named = os.environ.get("NHOOD_TEST_BROWSER")
    if named:
        return shutil.which(named)
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    return installed or _of_playwright()


def _of_playwright() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def _get() -> None:
    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Debian's Chromium for the browser tests (once)", flush=True)
        quiet = ("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            (*quiet, "update"),
            (*quiet, "install", "-y", "--no-install-recommends", "chromium"),
        ):
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
            if done.returncode:
                break
    else:
        print("Downloading Chromium for the browser tests (once)", flush=True)
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


def main() -> None:
    """Get a browser where there is none; where that fails say what to do, and go on."""
    if find_browser() is None:
        _get()
    if find_browser() is None:
        print(MISSING, file=sys.stderr)


if __name__ == "__main__":
    main()
