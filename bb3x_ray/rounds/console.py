"""What a run says while it works: one line an event, with the time since it began."""

import sys
import time

from rich.console import Console
from rich.markup import escape

WIDE = 170


class Speaker:
    """Callable. On a terminal the last line keeps moving (a spinner); elsewhere every line is plain."""

    def __init__(self, console: Console | None = None) -> None:
        # Where nobody watches, the report's table gets the width that it needs.
        width = None if sys.stdout.isatty() else WIDE
        self.console = console or Console(highlight=False, soft_wrap=True, width=width)
        self._began = time.monotonic()
        self._status = self.console.status("starting") if sys.stdout.isatty() else None
        if self._status:
            self._status.start()

    def __call__(self, words: str) -> None:
        seconds = int(time.monotonic() - self._began)
        self.console.print(f"[dim]{seconds // 60:3d}:{seconds % 60:02d}[/dim]  {escape(words)}")
        if self._status:
            self._status.update(f"[dim]{escape(words[:80])}[/dim]")

    def stop(self) -> None:
        if self._status:
            self._status.stop()
