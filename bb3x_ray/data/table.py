"""The interactions table (Delta Lake)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import DeltaTable

from bb3x_ray.data.damage import readable
from bb3x_ray.schemas.event import EVENT_SCHEMA
from bb3x_ray.storage import Storage, fsync_path

TABLE = "interactions"
IDS = "interactions_ids"  # the index of known event ids beside it
# Transaction "application" of the committer; its version is the last commit_seq of the table.
APP_ID = "bb3x-log"
# Delta's log keeps minima and maxima of these columns only: never a prefix of what a person wrote, nor an id,
# which would outlive an erasure there.
STATS_COLUMNS = ("commit_seq", "at")


def open_table(storage: Storage) -> DeltaTable | None:
    """The table at its newest version, or None before the first commit."""
    path = str(storage.path(TABLE))
    with readable(path):
        return DeltaTable(path) if DeltaTable.is_deltatable(path) else None


def create_table(storage: Storage) -> DeltaTable:
    path = storage.path(TABLE)
    path.mkdir(parents=True, exist_ok=True)
    return DeltaTable.create(
        str(path), EVENT_SCHEMA, configuration={"delta.dataSkippingStatsColumns": ",".join(STATS_COLUMNS)}
    )


def sync_newest(storage: Storage, table: DeltaTable) -> None:
    """Make the newest version survive a loss of power; Delta leaves its files to the page cache.

    Segments are archived after that, so an event is at any time on disk in one place at least.
    """
    folder = storage.path(TABLE)
    log = folder / "_delta_log" / f"{table.version():020d}.json"
    for line in log.read_text(encoding="utf-8").splitlines():
        action = json.loads(line)
        if "add" in action:
            fsync_path(folder / unquote(action["add"]["path"]))
    for path in (folder, log, log.parent):
        fsync_path(path)


def head_of(table: DeltaTable | None) -> int:
    return (table.transaction_version(APP_ID) or 0) if table else 0


def head(storage: Storage) -> int:
    """Last commit_seq, 0 when nothing was committed yet."""
    return head_of(open_table(storage))


def _dataset(storage: Storage, table: DeltaTable) -> ds.Dataset:
    """One version's rows; columns that a file was written without are null in its rows.

    Arrow reads the files itself: no Python callbacks in its reading threads, and not the types that Delta
    gives to a file that it rewrote (string views, which Arrow does not compare with strings).
    """
    files = pafs.SubTreeFileSystem(str(storage.path(TABLE)), pafs.LocalFileSystem())
    names = [unquote(uri.rsplit("/", 1)[-1]) for uri in table.file_uris()]  # the table has no partitions
    if not names:
        return ds.dataset(EVENT_SCHEMA.empty_table())
    return ds.dataset(names, schema=EVENT_SCHEMA, format="parquet", filesystem=files)


def scan(storage: Storage, table: DeltaTable, columns: list[str], keep: pc.Expression) -> pa.Table:
    """Rows of one table version."""
    with readable(storage.path(TABLE)):
        rows: pa.Table = _dataset(storage, table).to_table(columns=columns, filter=keep)
    return rows


def stream(storage: Storage, table: DeltaTable, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """All rows of one table version, some at a time, in no order."""
    with readable(storage.path(TABLE)):
        yield from _dataset(storage, table).to_batches(columns=columns, batch_readahead=2)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of the table: path under its folder, bytes, rows, lowest and highest commit_seq."""

    path: str
    size: int
    rows: int
    first: int
    last: int


def data_files(table: DeltaTable) -> list[DataFile]:
    """The files of one table version, by commit_seq."""
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    files = [
        DataFile(
            unquote(a["path"]), a["size_bytes"], a["num_records"], a["min.commit_seq"], a["max.commit_seq"]
        )
        for a in actions
    ]
    return sorted(files, key=lambda file: (file.first, file.path))
