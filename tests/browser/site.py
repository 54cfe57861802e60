"""A real server on a port of its own, a person's browser on it, and what a screen reader would trip over."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from bb3x_ray.serve.engines.protocol import Engine
from tests.serve.room import ListLog, lanes

# Generous: a machine may be busy with other things, and a test that waits says nothing about speed.
expect.set_options(timeout=60_000)
PATIENCE_MS = 120_000
PHONE, DESK = {"width": 390, "height": 780}, {"width": 1180, "height": 800}


@dataclass
class Site:
    url: str
    log: ListLog


def one_version(folder: Path) -> Engine:
    """An engine with the model in `folder`, called v0001."""
    return lanes(folder, max_queued=8)


@contextmanager
def serving(app: FastAPI, log: ListLog) -> Iterator[Site]:
    """`app` on a free port of this machine, for as long as the block runs."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Site(f"http://127.0.0.1:{port}", log)
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Visitor:
    """A person's browser. `complaints`: what its console said; a test that provokes one clears it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        # The browser complains of every 404; the page asks for these two, and hides what is not there.
        may_be_missing = message.location.get("url", "").endswith(("/v1/memories", "/v1/conversations"))
        if message.type == "error" and not (may_be_missing and "404" in message.text):
            self.complaints.append(message.text)

    def say(self, words: str) -> None:
        """Send, and wait until the reply is done."""
        replies = self.page.locator("#log .bot .line").count()
        self.page.get_by_label("Your message").fill(words)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#log .bot .line")).to_have_count(replies + 1)


@contextmanager
def visiting(
    browser: Browser, url: str, *, agreed: bool = True, share: bool = False, size: dict[str, int] = PHONE
) -> Iterator[Visitor]:
    """Somebody opens `url`; not `agreed`: for the first time. What the console complains of fails the test.

    Without motion, so that nothing is looked at while it still moves.
    """
    context = browser.new_context(viewport=size, accept_downloads=True, reduced_motion="reduce")  # type: ignore[arg-type]
    if agreed:
        choice = "yes" if share else "no"
        context.add_init_script(
            "if (!localStorage.getItem('bb3x-agreed')) {"
            f"localStorage.setItem('bb3x-agreed', 'yes'); localStorage.setItem('bb3x-share', '{choice}'); }}"
        )
    context.set_default_timeout(PATIENCE_MS)
    visitor = Visitor(context.new_page())
    visitor.page.on("console", visitor.hear)
    visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    visitor.page.goto(url)
    try:
        yield visitor
    finally:
        context.close()
    assert visitor.complaints == []


def assert_accessible(page: Page, where: str) -> None:
    """No finding of axe, of any of its rules, in what is on the page now."""
    found = Axe().run(page).response["violations"]
    told = [
        f"{one['id']} ({one['impact']}): {node['target']} {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]
    assert not told, f"{where}: " + "\n".join(told)


def assert_nothing_sticks_out(page: Page) -> None:
    """Everything that is on the page lies within its width; asked in one go, for there is much of it."""
    found = page.evaluate(
        """() => {
          const root = document.documentElement, main = document.querySelector('main');
          const width = root.clientWidth, out = [];
          if (root.scrollWidth > width || main.scrollWidth > main.clientWidth) out.push('it scrolls');
          for (const it of document.querySelectorAll('main *, header, header *, footer *, dialog[open] *')) {
            const { left, right, width: wide } = it.getBoundingClientRect();
            if (wide && !it.closest('.words') && (left < -1 || right > width + 1))
              out.push(`${it.tagName}.${it.className} from ${left} to ${right}`);
          }
          return out;
        }"""
    )
    assert not found, found


def picture(page: Page, name: str) -> None:
    """A screenshot, where BB3X_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("BB3X_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
