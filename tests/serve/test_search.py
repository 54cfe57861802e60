"""Searching: the protocol, against real servers on this machine, well-behaved and hostile ones."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.serve.local_search import LocalSearch, read_documents, search_app
from bb3x_ray.serve.search import DOCUMENTS, WORDS, Document, SearchFailed, SearchServer

Answer = Callable[[BaseHTTPRequestHandler, int], None]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """(url, forms that came in) of a server that answers request n by `answer(handler, n)`."""
    forms: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            forms.append(self.rfile.read(int(self.headers["content-length"])).decode())
            answer(self, len(forms))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/search", forms
        finally:
            running.shutdown()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def response(*documents: dict[str, object]) -> bytes:
    return json.dumps({"response": list(documents)}).encode()


TEA = {"url": "http://tea", "title": "Tea", "content": "Tea is a drink."}


def ask(url: str, query: str = "what is tea?", **settings: float) -> list[Document]:
    return asyncio.run(SearchServer(url, **settings)(query))  # type: ignore[arg-type]


def test_documents_are_few_and_short() -> None:
    long = {"url": "u" * 900, "title": "a\nb", "content": "word \n" * 500}
    with server(lambda h, _: send(h, 200, response(*[long] * 9, TEA))) as (url, forms):
        found = ask(url)
        assert len(found) == DOCUMENTS and all(len(d.content.split()) == WORDS for d in found)
        assert found[0].title == "a b" and len(found[0].url) == 300 and "\n" not in found[0].content
        assert parse_qs(forms[0]) == {"q": ["what is tea?"], "n": [str(DOCUMENTS)]}


def test_what_may_pass_is_tried_again_and_not_for_ever() -> None:
    def second_time(handler: BaseHTTPRequestHandler, number: int) -> None:
        send(handler, 503 if number == 1 else 200, response(TEA))

    with server(second_time) as (url, forms):
        assert [d.title for d in ask(url)] == ["Tea"] and len(forms) == 2
    with server(lambda h, _: send(h, 500, b"")) as (url, forms):
        with pytest.raises(SearchFailed, match="HTTP 500"):
            ask(url, tries=3)
        assert len(forms) == 3
    with server(lambda h, _: send(h, 404, b"")) as (url, forms):
        with pytest.raises(SearchFailed, match="HTTP 404"):
            ask(url, tries=3)
        assert len(forms) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'{"response": {}}',
        b'{"response": ["words"]}',
        b'{"response": [{"url": 1, "title": "t", "content": "c"}]}',
        b'{"response": [{"title": "t"}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_not_in_the_protocol_is_no_result_and_is_not_quoted(body: bytes) -> None:
    with server(lambda h, _: send(h, 200, body)) as (url, forms):
        with pytest.raises(SearchFailed) as failed:
            ask(url)
        assert len(forms) == 1 and "words" not in str(failed.value)


def test_a_hostile_server_gets_neither_our_memory_nor_our_time() -> None:
    with server(lambda h, _: send(h, 200, b"x" * 5_000)) as (url, _):
        with pytest.raises(SearchFailed, match="too long"):
            ask(url, max_bytes=1_000)
    with server(lambda h, _: send(h, 200, b"x", Content_Encoding="gzip")) as (url, _):
        with pytest.raises(SearchFailed, match="compressed"):
            ask(url)
    with server(lambda h, _: send(h, 302, b"", Location="http://127.0.0.1:1/")) as (url, _):
        with pytest.raises(SearchFailed, match="HTTP 302"):
            ask(url)

    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.02):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return

    with server(drip) as (url, forms):
        with pytest.raises(SearchFailed, match="TimeoutError"):
            ask(url, tries=2, timeout_s=0.3)
        stop.set()
        assert len(forms) == 2
    with pytest.raises(SearchFailed, match="ConnectError"):
        ask("http://127.0.0.1:1/", tries=1)
    with pytest.raises(UserError, match=r"modules\.search_server"):
        SearchServer("ftp://x")


def test_text_that_no_file_takes_is_mended() -> None:
    broken = {**TEA, "content": "half \ud83d a pair"}
    with server(lambda h, _: send(h, 200, response(broken))) as (url, _):
        assert [d.content for d in ask(url)] == ["half ? a pair"]


def test_what_ships_is_found_out_of_the_box() -> None:
    search = LocalSearch()
    assert len(search) >= 6
    for query, title in (
        ("Why does the sea rise and fall?", "Tides"),
        ("how do I oil the chain of my bicycle", "Looking after a bicycle"),
        ("at what temperature is green tea made", "Tea"),
    ):
        assert search.find(query)[0].title == title
    assert search.find("xyzzy") == [] == search.find("") == search.find("what is the")


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.md").write_text("# Zebras\n\nZebras have stripes.")
    (tmp_path / "b.txt").write_text("Yaks live high up")
    (tmp_path / "c.jsonl").write_text(
        '{"title": "Emus", "content": "Emus run."}\n\n{"content": "Just words"}\n'
    )
    (tmp_path / "d.pdf").write_bytes(b"\x00")
    assert [(d.title, d.url) for d in read_documents(tmp_path)] == [
        ("Yaks live high up", "b.txt"),
        ("Emus", "c.jsonl#1"),
        ("", "c.jsonl#3"),
        ("Zebras", "deep/a.md"),
    ]
    assert LocalSearch(tmp_path).find("stripes of a zebra")[0].url == "deep/a.md"


def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        LocalSearch(tmp_path / "none")
    with pytest.raises(UserError, match="holds no documents"):
        LocalSearch(tmp_path)
    (tmp_path / "c.jsonl").write_text('{"content": "words"}\n{"content": 5, "secret": 1}\n')
    with pytest.raises(UserError, match=r"c\.jsonl, line 2: ") as told:
        LocalSearch(tmp_path)
    assert "secret" not in str(told.value)


def test_the_local_search_speaks_the_protocol() -> None:
    async def talk() -> None:
        transport = httpx.ASGITransport(search_app(LocalSearch()))
        async with httpx.AsyncClient(transport=transport, base_url="http://search") as client:
            answer = await client.post("/any/path", data={"q": "bicycle chain", "n": "1"})
            assert answer.status_code == 200
            (document,) = answer.json()["response"]
            assert {*document} == {"url", "title", "content"} and "bicycle" in document["title"]
            assert (await client.post("/", data={"q": "xyzzy"})).json() == {"response": []}
            for form in ({}, {"q": " "}, {"q": "tea", "n": "-1"}, {"q": "tea", "n": "9999"}):
                assert (await client.post("/", data=form)).status_code == 400
            assert (await client.post("/", content=b"q=" + b"x" * 20_000)).status_code == 413
            assert (await client.get("/")).status_code == 405

    asyncio.run(talk())
