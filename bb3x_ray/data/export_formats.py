"""What each export format makes of whole conversations, written as they come."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bb3x_ray.data.label_info import label_info
from bb3x_ray.data.views import SPLITS, VIEWS, View, chunks, examples
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.event import EVENT_SCHEMA

_ROLE = {"human": "user", "bot": "assistant"}


class Writer:
    """Lines of JSON in files of a folder; `records` counts them.

    `write` takes rows of whole conversations as `export` reads them, with the column `split`.
    """

    # Where a format cannot say that a reply is only claimed, such conversations stay out.
    leaves_out_unverified: ClassVar[bool] = True

    def __init__(self, folder: Path, view: View | None, left_out: Counter[str]) -> None:
        self._folder, self._view, self._left_out = folder, view, left_out
        self._files: dict[str, IO[str]] = {}
        self.records = 0

    @classmethod
    def check(cls, view: View | None) -> None:
        """Raises UserError for a view that the format cannot hold."""

    def write(self, rows: pa.Table) -> None:
        raise NotImplementedError

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _line(self, name: str, line: str) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("w", encoding="utf-8")
        self._files[name].write(line + "\n")
        self.records += 1


class ReleaseWriter(Writer):
    """bb3: the release format, one conversation a line, in the chunk that keeps its split."""

    @classmethod
    def check(cls, view: View | None) -> None:
        if view is not None:
            raise UserError(
                "bb3 holds whole conversations, no view: leave --view out, or choose another format."
            )

    def write(self, rows: pa.Table) -> None:
        info = label_info(rows["details"], rows["feedback"], rows["author_kind"])
        table = rows.select(["conversation_id", "person", "author_kind", "text"])
        table = table.append_column("info", info).append_column("chunk", pa.array(chunks(rows)))
        for conversation_id, messages in groupby(table.to_pylist(), key=lambda row: row["conversation_id"]):
            history = list(messages)
            about = {"user_pseudo_id": history[0]["person"], "chat_id": conversation_id}
            said = ", ".join(_release_message(row) for row in history)
            line = f'{_json(about)[:-1]}, "message_history": [{said}]}}'
            self._line(f"release_data_{history[0]['chunk']:02d}.jsonl", line)


def _release_message(row: dict[str, Any]) -> str:
    """The message as JSON; `info` is copied as it is, which is quicker than to read and write it."""
    inner = row["info"].strip()[1:-1].replace("\n", " ").replace("\r", " ").strip()
    said = _json({"text": row["text"], "sender": "human" if row["author_kind"] == "person" else "bot"})
    return "{" + (inner + ", " if inner else "") + said[1:]


class ChatWriter(Writer):
    """openai: `messages`, with `rating`, `reasons`, `comment` and `correction` on rated replies; a file a
    split."""

    def write(self, rows: pa.Table) -> None:
        if self._view is not None:
            for example in _examples(rows, self._view, self._left_out):
                self._line(f"{example['split']}.jsonl", _json(_chat_example(example)))
            return
        names = ["conversation_id", "person", "split", "at", "author_kind", "author_name", "text", "feedback"]
        for conversation_id, messages in groupby(
            rows.select(names).to_pylist(), key=lambda row: row["conversation_id"]
        ):
            said = list(messages)
            first = said[0]
            line: dict[str, Any] = {"messages": [_chat_message(row) for row in said], "id": conversation_id}
            line["user"] = first["person"]
            if first["at"] > 0:
                line["created"] = datetime.fromtimestamp(first["at"] / 1e6, UTC).isoformat()
            self._line(f"{first['split']}.jsonl", _json(line))


def _chat_message(row: dict[str, Any]) -> dict[str, Any]:
    if row["author_kind"] == "person":
        return {"role": "user", "content": row["text"]}
    message = {"role": "assistant", "content": row["text"], "model": row["author_name"]}
    standing = row["feedback"] or []
    ratings = {one["rating"] for one in standing}
    if len(ratings) == 1:  # people who contradict each other rated nothing together
        message["rating"] = ratings.pop()
        message["reasons"] = list(dict.fromkeys(reason for one in standing for reason in one["reasons"]))
        for words in ("comment", "correction"):
            message[words] = "\n".join(one[words] for one in standing if one[words])
    return {name: value for name, value in message.items() if value not in ([], "") or name == "content"}


def _chat_example(example: dict[str, Any]) -> dict[str, Any]:
    messages = _turns(example)
    role = "user" if example["author_kind"] == "person" else "assistant"
    label = {"role": role, "content": example["label"]}
    if example["thumb"] is not None:
        label["rating"] = example["thumb"]
    return {
        "messages": [*messages, label],
        "id": f"{example['conversation_id']}/{example['position']}",
        "user": example["person"],
    }


class PreferenceWriter(Writer):
    """trl: `prompt, completion, label`, what its trainers of unpaired preferences take; a file a split.

    What somebody says that a reply should have been is a good completion beside it.
    """

    leaves_out_unverified = False  # their replies are never labels of a view

    @classmethod
    def check(cls, view: View | None) -> None:
        if view is not None and view.label == "human":
            raise UserError(
                "trl holds replies with their thumbs: choose a view of the bot, such as --view bot."
            )

    def write(self, rows: pa.Table) -> None:
        better = _corrections(rows)
        for example in _examples(rows, self._view or VIEWS["bot"], self._left_out):
            if example["thumb"] is None:
                self._left_out["no_thumb"] += 1
                continue
            labels = [(example["label"], example["thumb"] == 1)]
            place = (example["conversation_id"], example["position"])
            labels += [(words, True) for words in better.get(place, ())]
            for words, label in labels:
                completion = [{"role": "assistant", "content": words}]
                line = {"prompt": _turns(example), "completion": completion, "label": label}
                self._line(f"{example['split']}.jsonl", _json(line))


def _corrections(rows: pa.Table) -> dict[tuple[str, int], list[str]]:
    """(conversation, position) -> what people say should stand there."""
    some = rows.filter(pc.is_valid(rows["feedback"])).select(["conversation_id", "position", "feedback"])
    return {
        (row["conversation_id"], row["position"]): said
        for row in some.to_pylist()
        if (said := [one["correction"] for one in row["feedback"] if one["correction"]])
    }


class ParquetWriter(Writer):
    """parquet: the log's own events, or a view's examples; a file a split."""

    leaves_out_unverified = False

    def __init__(self, folder: Path, view: View | None, left_out: Counter[str]) -> None:
        super().__init__(folder, view, left_out)
        self._writers: dict[str, pq.ParquetWriter] = {}

    def write(self, rows: pa.Table) -> None:
        table = _events(rows) if self._view is None else examples(rows, self._view, left_out=self._left_out)
        for split in SPLITS:
            mine = table.filter(pc.equal(table["split"], split))
            if not len(mine):
                continue
            if self._view is None:
                mine = mine.drop_columns("split")
            if split not in self._writers:
                path = self._folder / f"{split}.parquet"
                self._writers[split] = pq.ParquetWriter(path, mine.schema, compression="zstd")
            self._writers[split].write_table(mine)
            self.records += len(mine)

    def close(self) -> None:
        super().close()
        for writer in self._writers.values():
            writer.close()


def _events(rows: pa.Table) -> pa.Table:
    """Messages with their chunk, and behind a message the feedback, annotations and rating that stand."""
    names = [name for name in EVENT_SCHEMA.names if name != "commit_seq"]
    place = rows.column_names.index("chunk")
    rows = rows.set_column(place, "chunk", pa.array(chunks(rows), pa.int16()))
    kept = rows.select([*names, "split"])
    said = pc.or_(pc.is_valid(rows["feedback"]), pc.is_valid(rows["annotation"]))
    said = pc.or_(said, pc.is_valid(rows["annotations"]))
    order = np.arange(len(rows)).tolist()
    made, places = list[dict[str, Any]](), list[int]()
    rated: set[str] = set()
    spoken = pc.indices_nonzero(said)
    for where, row in zip(spoken.to_pylist(), rows.take(spoken).to_pylist(), strict=True):
        plain = {**{name: row[name] for name in (*names, "split")}, **_NO_MESSAGE}
        for one in row["feedback"] or []:
            made.append({**plain, **one, "kind": "feedback", "message_id": row["message_id"]})
            places.append(where)
        for one in row["annotations"] or []:
            made.append({**plain, **_annotation(one), "message_id": row["message_id"]})
            places.append(where)
        if row["annotation"] is not None and row["conversation_id"] not in rated:
            rated.add(row["conversation_id"])
            event_id = f"{row['conversation_id']}/annotation"
            made.append({**plain, "event_id": event_id, "kind": "annotation", "rating": row["annotation"]})
            places.append(where)
    if not made:
        return kept
    both = pa.concat_tables([kept, pa.Table.from_pylist(made, schema=kept.schema)])
    return both.take(pa.array(np.argsort(np.array([*order, *places]), kind="stable")))


def _annotation(one: dict[str, Any]) -> dict[str, Any]:
    about = {"event_id": one["event_id"], "kind": "annotation", "reasons": [one["label"]]}
    return {**about, "author_kind": "person", "author_name": one["rater"], "weight": one["weight"]}


_NO_MESSAGE: dict[str, Any] = {
    "message_id": "",
    "position": None,
    "author_kind": None,
    "author_name": None,
    "text": None,
    "finish_reason": None,
    "reasons": [],
    "details": None,
}

FORMATS: dict[str, type[Writer]] = {
    "bb3": ReleaseWriter,
    "trl": PreferenceWriter,
    "openai": ChatWriter,
    "parquet": ParquetWriter,
}


def _examples(rows: pa.Table, view: View, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    table = examples(rows, view, with_turns=True, left_out=left_out).drop_columns("label_info")
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _turns(example: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": _ROLE[turn["sender"]], "content": turn["text"]} for turn in example["turns"]]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
