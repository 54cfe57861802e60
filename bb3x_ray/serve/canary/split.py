"""Who talks to the candidate: a keyed hash of the candidate and the person, the same in every process."""

import hashlib
import hmac
from dataclasses import dataclass

_SPACE = 2**64


@dataclass(frozen=True, slots=True)
class Split:
    """Sends `share` percent of people to `candidate`, the others to `champion`.

    champion, candidate   versions; candidate None: no canary, everybody gets the champion
    share                 percent, 0 to 100. Raising it moves people to the candidate only, lowering it to the
                          champion only: the threshold moves, nobody's place does
    key                   the server's secret: without it nobody can choose a name that lands on the candidate
    """

    champion: str
    candidate: str | None
    share: float
    key: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 100:
            raise ValueError("share is a percentage, 0 to 100")

    def arm(self, person: str, conversation_id: str) -> str:
        """The version that answers. Sticky by person; for nobody in particular (""), by conversation.

        The server calls people who give no `user` by their conversation already, so one of their
        conversations stays with one version, and two of them need not.
        """
        if self.candidate is None or not self.share:
            return self.champion
        return self.candidate if self._place(person or conversation_id) < self.share / 100 else self.champion

    def _place(self, who: str) -> float:
        """In [0, 1), evenly. It depends on the candidate, so that the next canary falls to others."""
        # Length first, so that ("v1", "2x") and ("v12", "x") differ.
        message = f"canary:{len(self.candidate or '')}:{self.candidate}:{who}".encode(
            "utf-8", "surrogatepass"
        )
        return int.from_bytes(hmac.new(self.key, message, hashlib.sha256).digest()[:8], "big") / _SPACE
