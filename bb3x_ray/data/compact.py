"""Many small files of the table become few, in which a conversation's rows stand together.

Every commit leaves a file. A section is a run of neighbouring small files: its rows are read, sorted by
conversation and written again in one Delta commit, which replaces exactly them. So memory is bounded by
a section, and a process that is killed leaves the table as it was, or one section further. What rows
say does not change, their commit_seq neither. Files of old versions go when they are `keep_hours` old;
rounds have copies of what they read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, write_deltalake

from bb3x_ray.data.committer import FILE_BYTES, WRITER, lease
from bb3x_ray.data.table import DataFile, data_files, open_table, scan, sync_newest
from bb3x_ray.schemas.event import EVENT_SCHEMA
from bb3x_ray.storage import Storage

SMALL = 16_000_000  # bytes: larger files stay as they are
_SECTION = 32_000_000  # bytes of files rewritten together; decoded and sorted about fifteen times as much


@dataclass(frozen=True, slots=True)
class Compacted:
    """Files of the table before and after, rows written again, files of old versions removed."""

    files_before: int
    files_after: int
    rows: int
    removed: int


def compact(storage: Storage, keep_hours: int = 168) -> Compacted:
    """Rewrite small files, then remove files that only versions older than `keep_hours` need.

    Raises UserError when another process holds the committer's lease, or the disk is full.
    """
    if open_table(storage) is None:
        return Compacted(0, 0, 0, 0)
    with lease(storage):
        table = open_table(storage)
        assert table is not None
        before = data_files(table)
        rows = sum(_rewrite(storage, table, section) for section in sections(before))
        if rows:
            table.create_checkpoint()
        gone = table.vacuum(keep_hours, dry_run=False, enforce_retention_duration=False, full=True)
        return Compacted(len(before), len(data_files(table)), rows, len(gone))


def sections(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Runs of small files to be rewritten together: two files or more, and no neighbour left out."""
    found: list[list[DataFile]] = [[]]
    for unit in _units(files):
        if sum(file.size for file in unit) >= SMALL:
            found.append([])
            continue
        found[-1].extend(unit)
        if sum(file.size for file in found[-1]) >= _SECTION:
            found.append([])
    return [section for section in found if len(section) > 1]


def _units(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Files whose commit_seq ranges overlap belong together: a range of commit_seq takes all or none."""
    units: list[list[DataFile]] = []
    last = -1
    for file in files:
        if file.first > last:
            units.append([])
        units[-1].append(file)
        last = max(last, file.last)
    return units


def _rewrite(storage: Storage, table: DeltaTable, section: list[DataFile]) -> int:
    first, last = section[0].first, max(file.last for file in section)
    seq = ds.field("commit_seq")
    rows = scan(storage, table, EVENT_SCHEMA.names, (seq >= first) & (seq <= last))
    if len(rows) != sum(file.rows for file in section):
        raise RuntimeError(f"commit_seq {first} to {last} lie in other files than the table's log says")
    order = [("conversation_id", "ascending"), ("position", "ascending"), ("commit_seq", "ascending")]
    write_deltalake(
        table,
        rows.sort_by(order),
        mode="overwrite",
        predicate=f"commit_seq >= {first} AND commit_seq <= {last}",
        schema_mode="merge",
        target_file_size=FILE_BYTES,
        writer_properties=WRITER,
        commit_properties=CommitProperties(custom_metadata={"bb3x": "compact"}),
    )
    sync_newest(storage, table)
    return len(rows)
