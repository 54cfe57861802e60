"""One browser for the tests of this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("BB3X_CHROMIUM", "/usr/bin/chromium")
PLAIN = (
    "plain.test"  # this machine by a name to which the browser gives no more than to any site of plain http
)
QUIET = [
    f"--host-resolver-rules=MAP {PLAIN} 127.0.0.1",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


# Playwright keeps an event loop running in the main thread for as long as it is open, and no other test
# could run one of its own: so each file opens it anew.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"no Chromium at {CHROMIUM} (set BB3X_CHROMIUM)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()
