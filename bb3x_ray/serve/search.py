"""Searching for something to say: documents for a query, from a server that may be slow, broken or hostile.

The protocol is that of ParlAI's search servers: POST the form fields `q` and `n`, and get
`{"response": [{"url": …, "title": …, "content": …}, …]}`. Everything is bounded: tries, seconds, bytes read,
documents, words of each. Redirects are not followed, and nothing compressed is unpacked.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from bb3x_ray.schemas.errors import UserError

DOCUMENTS = 5
WORDS = 100
MAX_QUERY_CHARS = 300
_MAX_WORD_CHARS = 60
_MAX_LINE_CHARS = 300  # of a title and of an address
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Document:
    url: str
    title: str
    content: str

    def cut(self, words: int = WORDS) -> "Document":
        """With the first words of its content only, on one line."""
        kept = [word[:_MAX_WORD_CHARS] for word in self.content[: words * 200].split()[:words]]
        return Document(
            self.url[:_MAX_LINE_CHARS], " ".join(self.title[:_MAX_LINE_CHARS].split()), " ".join(kept)
        )


class SearchFailed(Exception):
    """No answer that can be used. Its words are the kind of failure, never what was asked or answered."""


class Search(Protocol):
    """query -> at most DOCUMENTS documents of at most WORDS words. Raises SearchFailed."""

    async def __call__(self, query: str) -> list[Document]: ...


class SearchServer:
    """A search server at `url`.

    tries       requests for one query at most; only what may pass is tried again (no connection, 429, 5xx)
    timeout_s   for one try
    max_bytes   of one answer; a longer one is refused unread
    """

    def __init__(
        self, url: str, *, tries: int = 2, timeout_s: float = 5.0, max_bytes: int = 2_000_000
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError("modules.search_server: give an address that begins with http:// or https://.")
        self._url, self._tries, self._timeout_s, self._max_bytes = url, tries, timeout_s, max_bytes

    async def __call__(self, query: str) -> list[Document]:
        reason = ""
        async with httpx.AsyncClient(
            timeout=self._timeout_s, follow_redirects=False, headers={"Accept-Encoding": "identity"}
        ) as client:
            for attempt in range(self._tries):
                if attempt:
                    await asyncio.sleep(_WAIT_S * attempt)
                try:
                    # httpx's timeout is one of each read: a server that drips would hold us for ever.
                    async with asyncio.timeout(self._timeout_s):
                        return _documents(await self._post(client, query))
                except (TimeoutError, httpx.TransportError) as error:
                    reason = type(error).__name__
                except _MayPass as error:
                    reason = str(error)
        raise SearchFailed(reason)

    async def _post(self, client: httpx.AsyncClient, query: str) -> bytes:
        form = {"q": query[:MAX_QUERY_CHARS], "n": str(DOCUMENTS)}
        async with client.stream("POST", self._url, data=form) as answer:
            if answer.status_code == 429 or answer.status_code >= 500:
                raise _MayPass(f"HTTP {answer.status_code}")
            if answer.status_code != 200:
                raise SearchFailed(f"HTTP {answer.status_code}")
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise SearchFailed("a compressed answer")
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > self._max_bytes:
                    raise SearchFailed("an answer that is too long")
            return bytes(body)


class _MayPass(Exception):
    """Worth another try."""


def _documents(body: bytes) -> list[Document]:
    try:
        found = json.loads(body)["response"]
        return documents_of(found)
    except (ValueError, TypeError, KeyError, RecursionError):  # their words may quote the answer
        raise SearchFailed("an answer that is not in the protocol") from None


def documents_of(found: Sequence[Any]) -> list[Document]:
    """The documents of a `response`, cut. Raises TypeError or KeyError for what is none."""
    if not isinstance(found, list):
        raise TypeError
    documents = []
    for one in found[:DOCUMENTS]:
        fields = [one["url"], one["title"], one["content"]]
        if not all(isinstance(text, str) for text in fields):
            raise TypeError
        # What no file and no tokenizer takes, such as half a surrogate pair, is replaced.
        url, title, content = (text.encode("utf-8", "replace").decode() for text in fields)
        documents.append(Document(url, title, content).cut())
    return [document for document in documents if document.content]
