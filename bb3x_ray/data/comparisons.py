"""What people chose in blind comparisons, as the log has it: versions and choices, no words."""

import json
from collections.abc import Iterator

import pyarrow.compute as pc
import pyarrow.dataset as ds

from bb3x_ray.data.late_words import consent_upto
from bb3x_ray.data.table import open_table, scan
from bb3x_ray.schemas.comparison import COMPARISON, HumanChoice
from bb3x_ray.storage import Storage

_COLUMNS = ["at", "conversation_id", "person", "simulated", "details"]


def comparisons(storage: Storage, upto_seq: int | None = None) -> Iterator[HumanChoice]:
    """Choices in the order of the log, committed up to `upto_seq` (None: all); for the same number the same
    answer for ever, but for people who were erased.

    What somebody said whose consent to everything is withdrawn is left out: it was theirs to take back. A
    comparison without consent to keep its words counts like a thumb without words does.
    """
    table = open_table(storage)
    if table is None:
        return
    last = 2**63 - 1 if upto_seq is None else upto_seq
    chosen = (
        (ds.field("kind") == "feedback")
        & (ds.field("commit_seq") <= last)
        & pc.starts_with(ds.field("event_id"), "f-choice-")
    )
    rows = scan(storage, table, ["commit_seq", *_COLUMNS], chosen).sort_by("commit_seq")
    consent = consent_upto(storage, last)
    for row in rows.to_pylist():
        about = json.loads(row["details"] or "{}").get(COMPARISON, {})
        if "choice" not in about or consent.is_withdrawn(row["person"], row["conversation_id"]):
            continue
        yield HumanChoice(
            version_a=about["a"]["version"],
            version_b=about["b"]["version"],
            choice=about["choice"],
            person=row["person"],
            conversation_id=row["conversation_id"],
            simulated=row["simulated"],
            at=row["at"],
        )
