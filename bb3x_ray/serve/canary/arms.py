"""What a replica asks at every turn: which version answers this person."""

import logging
import time
from collections.abc import Callable

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.canary.split import Split

# () -> (champion, candidate of the canary or None, share in percent)
FindArms = Callable[[], tuple[str, str | None, float]]
log = logging.getLogger(__name__)


class Arms:
    """Follows the aliases; looks them up again once they are `seconds` old, so nobody gets the candidate
    longer than that after its canary ended. While they cannot be read, what was known last goes on: a turn
    does not fail because of them.

    key   the server's secret, the same on all replicas
    """

    def __init__(
        self, find: FindArms, key: bytes, seconds: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find, self._key, self._seconds, self._clock = find, key, seconds, clock
        self._found_at = clock()
        self._split = self._look()

    def arm(self, person: str, conversation_id: str) -> str | None:
        """The candidate's version for those who talk to it; None: whatever new requests go to, the champion.

        The candidate may not be in memory yet, or any more: then the champion answers, too.
        """
        split = self.split
        version = split.arm(person, conversation_id)
        return None if version == split.champion else version

    @property
    def split(self) -> Split:
        now = self._clock()
        if now - self._found_at >= self._seconds:
            self._found_at = now  # first, so that threads that ask meanwhile go on with what is known
            try:
                self._split = self._look()
            except (OSError, ValueError, KeyError, UserError) as error:
                log.warning("the arms stay as they were, for the aliases: %s", type(error).__name__)
        return self._split

    def _look(self) -> Split:
        champion, candidate, share = self._find()
        return Split(champion, candidate, share, self._key)
