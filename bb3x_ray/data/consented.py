"""Which conversations may leave the log: their person agreed, and their words are there."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.data.consent import NO_BASIS
from bb3x_ray.data.shard import runs

# What `consented` reads beside the columns that one wants, and joins (`kinds`).
COLUMNS = ("conversation_id", "consent_basis", "text")
_NO = pa.array(NO_BASIS)


def consented(rows: pa.Table, left_out: Counter[str]) -> pa.Table:
    """Rows of the conversations that may leave the log; the others are counted by reason in `left_out`.

    rows       whole conversations from `shards`, with COLUMNS and, where it was asked for, "consent"
    left_out   by `no_consent`, `consent_withdrawn`, `no_text`: the first of these that holds

    One message without consent, or without its text, leaves the conversation out; so does a consent that was
    withdrawn later. What was agreed to later does not bring in what was said without consent.
    """
    if not len(rows):
        return rows
    reasons = {"no_consent": pc.or_(pc.is_in(rows["consent_basis"], _NO), pc.is_null(rows["consent_basis"]))}
    if "consent" in rows.column_names:
        reasons["consent_withdrawn"] = is_withdrawn(rows)
    reasons["no_text"] = pc.is_null(rows["text"])
    reasons = {reason: mask for reason, mask in reasons.items() if pc.any(mask).as_py()}
    if not reasons:
        return rows
    starts = runs(rows["conversation_id"])
    stays = np.ones(len(starts), dtype=bool)
    for reason, mask in reasons.items():
        goes = np.logical_or.reduceat(mask.to_numpy(), starts) & stays
        if goes.any():
            left_out[reason] += int(goes.sum())
            stays &= ~goes
    return rows.filter(pa.array(np.repeat(stays, np.diff(np.append(starts, len(rows))))))


def is_withdrawn(rows: pa.Table) -> pa.ChunkedArray:
    """[N] messages whose person took consent back; `rows` have the column "consent"."""
    return pc.fill_null(pc.is_in(rows["consent"], _NO), False)
