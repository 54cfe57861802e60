"""Consent that was taken back, or given again: the latest `consent` event stands.

An event's `conversation_id` says what it is about, `EVERYTHING` all that the person ever said; its
`consent_basis` is "none" for taken back. Where both speak, the later one stands. A message that was logged
without consent has no text, and no later consent brings it back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bb3x_ray.schemas.event import EVERYTHING

NO_BASIS = ("", "none")


@dataclass(frozen=True, slots=True)
class Consent:
    """(person, conversation_id or EVERYTHING) -> (place in the log's order, whether it is given)."""

    standing: dict[tuple[str, str], tuple[tuple[int, int], bool]]

    def is_withdrawn(self, person: str, conversation_id: str) -> bool:
        said = [self.standing.get((person, about)) for about in (conversation_id, EVERYTHING)]
        latest = max((one for one in said if one), default=None)
        return latest is not None and not latest[1]


def standing_consent(rows: Iterable[dict[str, Any]]) -> Consent:
    """rows: `consent` events as dicts, in any order."""
    standing = {}
    for row in sorted(rows, key=lambda row: (row["at"], row["commit_seq"])):
        given = row["consent_basis"] not in NO_BASIS
        standing[row["person"], row["conversation_id"]] = (row["at"], row["commit_seq"]), given
    return Consent(standing)
