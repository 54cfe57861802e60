"""DuckDB reads the release's files into one Parquet file: `python -m benchmarks.data.ingest_duckdb FOLDER
OUT`.

Its schema is told, since finding it out would read part of the files twice; one row a conversation, as they
come.
"""

import os
import sys
from pathlib import Path

import duckdb

from benchmarks.data.arm import report, timer

_SAFETY = "STRUCT(duo_safety VARCHAR, string_matcher VARCHAR)"
_TEXTS = "VARCHAR[]"
_MESSAGE = {
    "text": "VARCHAR",
    "sender": "VARCHAR",
    "human_message_id": "VARCHAR",
    "is_dislike_feedback": "BOOLEAN",
    "bot_message_id": "VARCHAR",
    "is_liked": "BOOLEAN",
    "is_disliked": "BOOLEAN",
    "dislike_type": "VARCHAR",
    "memories": _TEXTS,
    "memory_decision": "VARCHAR",
    "memory_knowledge": "VARCHAR",
    "search_decision": "VARCHAR",
    "search_query": "VARCHAR",
    "search_knowledge": "VARCHAR",
    "search_knowledge_doc_titles": _TEXTS,
    "search_knowledge_doc_content": _TEXTS,
    "search_knowledge_doc_urls": _TEXTS,
    "is_safety_controlled_response": "BOOLEAN",
    "previous_interaction_failure": "VARCHAR",
    "from_model_crash": "BOOLEAN",
    "safety": _SAFETY,
    "reward": "VARCHAR",
    "mturk": "MAP(VARCHAR, BIGINT)",
}


def main(folder: str, out: str) -> None:
    message = ", ".join(f"{name} {type_}" for name, type_ in _MESSAGE.items())
    columns = {
        "user_pseudo_id": "VARCHAR",
        "chat_id": "VARCHAR",
        "convo_id": "BIGINT",
        "message_history": f"STRUCT({message})[]",
    }
    began = timer()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {os.cpu_count()}")
    files = str(Path(folder) / "*.jsonl")
    connection.execute(
        f"COPY (SELECT * FROM read_json(?, format='newline_delimited', columns={columns!r})) "
        f"TO '{out}' (FORMAT parquet)",
        [files],
    )
    report(timer() - began, bytes=Path(out).stat().st_size, version=duckdb.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
