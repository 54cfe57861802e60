"""What must hold of a log after any crash."""

from bb3x_ray.data.table import head, open_table, scan
from bb3x_ray.storage import Storage


def committed_ids(storage: Storage) -> list[str]:
    """Ids in the table, by commit_seq, which must count from 1 to the head without gap or double."""
    table = open_table(storage)
    assert table is not None
    rows = scan(storage, table, ["event_id", "commit_seq"], keep=None).sort_by("commit_seq")
    assert rows["commit_seq"].to_pylist() == list(range(1, head(storage) + 1))
    ids: list[str] = rows["event_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return ids
