"""What stands by now of feedback, annotations and consent: what came after a slice was pinned counts too."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bb3x_ray.data.shard import empty
from bb3x_ray.data.standing import SIDE_COLUMNS, Consent, standing_annotations, standing_feedback
from bb3x_ray.data.table import open_table, scan
from bb3x_ray.schemas.conversation import Annotation, Feedback
from bb3x_ray.storage import Storage


def feedback_upto(storage: Storage, upto_seq: int) -> Mapping[str, tuple[Feedback, ...]]:
    """message id -> the latest feedback of each person about it, committed up to `upto_seq`; () where all of
    it was taken back. The log only grows, so the same `upto_seq` gives the same answer for ever."""
    rows = _rows(storage, "feedback", upto_seq)
    ids = pc.unique(rows["message_id"])
    standing = standing_feedback(pa.chunked_array([ids]), rows)
    return {
        message_id: tuple(
            Feedback(**{**one, "message_id": message_id, "reasons": tuple(one["reasons"])}) for one in said
        )
        for message_id, said in zip(ids.to_pylist(), standing.to_pylist(), strict=True)
    }


def annotations_upto(storage: Storage, upto_seq: int) -> Mapping[str, tuple[Annotation, ...]]:
    """message id -> the latest annotation of each rater about it, committed up to `upto_seq`: the same answer
    for ever."""
    rows = _rows(storage, "annotation", upto_seq)
    ids = pc.unique(rows["message_id"])
    standing = standing_annotations(pa.chunked_array([ids]), rows)
    return {
        message_id: tuple(Annotation(message_id=message_id, **one) for one in said)
        for message_id, said in zip(ids.to_pylist(), standing.to_pylist(), strict=True)
        if said
    }


def consent_upto(storage: Storage, upto_seq: int) -> Consent:
    """What people said of their consent up to `upto_seq`: the same answer for ever."""
    return Consent.of(_rows(storage, "consent", upto_seq))


def _rows(storage: Storage, kind: str, upto_seq: int) -> pa.Table:
    table = open_table(storage)
    if table is None:
        return empty(SIDE_COLUMNS)
    return scan(
        storage, table, SIDE_COLUMNS, (ds.field("kind") == kind) & (ds.field("commit_seq") <= upto_seq)
    )
