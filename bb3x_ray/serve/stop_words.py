"""Stop strings: end a reply before one of them, also where it comes in pieces."""

from collections.abc import Sequence


class StopWords:
    """Passes text on, holding back only what may yet turn out to begin a stop string.

    stops = StopWords(["END"]);  stops.push("the E") == "the ";  stops.push("ND") == "";  stops.hit
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """What may be shown now; nothing after a stop string was met."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max(self._overlap(stop) for stop in self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def flush(self) -> str:
        """The rest, when the reply has ended by itself."""
        rest, self._held = self._held, ""
        return rest

    def _overlap(self, stop: str) -> int:
        """The length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._held[-n:])), 0)
