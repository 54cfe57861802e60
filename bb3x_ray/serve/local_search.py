"""Search that works out of the box: BM25 over a folder of documents, and the server that offers it to others.

A folder holds text and Markdown files (one document each, its first line is the title) and JSON lines
({"title": …, "content": …, "url": …}, a document a line). Without a folder of one's own, a few documents of
the project are searched (`documents/`): enough to see that it works, no more.
"""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import bm25s
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.search import DOCUMENTS, MAX_QUERY_CHARS, Document

OWN = Path(__file__).parent / "documents"
MOST_FOUND = 20
_MAX_FORM_BYTES = 10_000
_WORD = re.compile(r"[^\W_]+")
# Words of questions, which say nothing of what is asked about.
_STOP = frozenset(
    """a about an and any are as at be by can could did do does for from had has have how i in is it its me my
    of on or our please tell that the their them there they this to was we were what when where which who why
    will with would you your""".split()
)


class LocalSearch:
    """Documents of a folder, ranked by BM25; read once, when it is made.

    Raises UserError for a folder without documents, and for a line that is none, with file and line.
    """

    def __init__(self, folder: Path = OWN) -> None:
        self._documents = read_documents(folder)
        words = [_words(f"{d.title} {d.title} {d.content}") or ["."] for d in self._documents]
        self._ids = {word: number for number, word in enumerate(sorted({w for of in words for w in of}))}
        self._index = bm25s.BM25()
        numbered = [[self._ids[word] for word in of] for of in words]
        self._index.index((numbered, self._ids), show_progress=False)

    def __len__(self) -> int:
        return len(self._documents)

    async def __call__(self, query: str) -> list[Document]:
        return await run_in_threadpool(self.find, query)

    def find(self, query: str, most: int = DOCUMENTS) -> list[Document]:
        """The documents that share a word with the query, the best first, whole ones cut to some words."""
        asked = [self._ids[word] for word in _words(query[:MAX_QUERY_CHARS]) if word in self._ids]
        if not asked:
            return []
        scores = self._index.get_scores_from_ids(asked)
        best = scores.argsort(kind="stable")[::-1][: min(most, MOST_FOUND)]
        return [self._documents[place].cut() for place in best if scores[place] > 0]


def search_app(search: LocalSearch) -> Starlette:
    """The search as a server of the protocol: POST the form fields `q` and `n` to any path."""

    async def answer(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_FORM_BYTES:
                return JSONResponse({"error": "the form is too long"}, 413)
        form = parse_qs(bytes(body).decode("utf-8", "replace"), max_num_fields=10)
        query, number = form.get("q", [""])[0], form.get("n", [str(DOCUMENTS)])[0]
        if not query.strip() or not (number.isascii() and number.isdigit() and len(number) < 4):
            return JSONResponse({"error": "send the form fields q, a query, and n, a number"}, 400)
        found = await run_in_threadpool(search.find, query, int(number))
        return JSONResponse(
            {"response": [{"url": d.url, "title": d.title, "content": d.content} for d in found]}
        )

    return Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])


def read_documents(folder: Path) -> list[Document]:
    """The documents of a folder and of those in it, by name. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"modules.documents: there is no folder {folder}.")
    found: list[Document] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".txt", ".md", ".jsonl")):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8; save it as that, or take it out of the folder.") from None
        url = path.relative_to(folder).as_posix()
        found += _lines(path, url, text) if path.suffix.lower() == ".jsonl" else _whole(url, text)
    if not found:
        raise UserError(f"{folder} holds no documents: .txt, .md or .jsonl files with words in them.")
    return found


def _whole(url: str, text: str) -> list[Document]:
    title, _, content = text.strip().partition("\n")
    content = content.strip() or title
    return [Document(url, title.lstrip("# ").strip(), content)] if content else []


def _lines(path: Path, url: str, text: str) -> list[Document]:
    documents = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is None:
            raise UserError(
                f'{path}, line {number}: a document is {{"title": …, "content": …, "url": …}}, all texts.'
            )
        documents.append(
            Document(entry.get("url", f"{url}#{number}"), entry.get("title", ""), entry["content"])
        )
    return documents


def _entry(line: str) -> dict[str, str] | None:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return None
    texts = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
    return entry if texts and "content" in entry and {*entry} <= {"title", "content", "url"} else None


def _words(text: str) -> list[str]:
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP]


def _stem(word: str) -> str:
    """Plurals and the like found by their singular: a few endings are enough for so small a search."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
