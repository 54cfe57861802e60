"""OpenAI's own Python client, unchanged, against the server."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from bb3x_ray.config import ChatConfig
from tests.serve.served import Served, served

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    chat = ChatConfig(max_new_tokens=12)
    with served(tiny_model, tmp_path_factory.mktemp("openai"), chat=chat, max_batch=4) as running:
        yield running


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_plain_reply(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="champion",
        messages=[{"role": "system", "content": "Be kind."}, *HELLO],
        n=1,
        temperature=0.7,
        top_p=0.9,
        user="ada",
        metadata={"conversation_id": "tea", "purpose": "a test"},
    )
    assert reply.object == "chat.completion" and reply.model == "v0001"
    assert reply.choices[0].message.role == "assistant" and reply.choices[0].message.content is not None
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage is not None and reply.usage.total_tokens == (
        reply.usage.prompt_tokens + reply.usage.completion_tokens
    )


def test_a_stream_with_usage_is_the_plain_reply(client: openai.OpenAI) -> None:
    asked = {"model": "champion", "messages": HELLO, "seed": 7}
    plain = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    words = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert words == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage and not chunks[-1].choices
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason
    again = client.chat.completions.create(**asked)
    assert again.choices[0].message.content == words
    assert chunks[-1].model_extra["feedback_token"] == chunks[-2].model_extra["feedback_token"]


def test_lengths_temperature_and_stop(client: openai.OpenAI) -> None:
    def ask(**more: object) -> str:
        reply = client.chat.completions.create(model="champion", messages=HELLO, temperature=0, **more)
        return reply.choices[0].message.content or ""

    whole = ask()
    assert ask() == whole
    short = client.chat.completions.create(model="champion", messages=HELLO, temperature=0, max_tokens=3)
    assert short.usage is not None and short.usage.completion_tokens <= 3
    assert ask(max_completion_tokens=3) == short.choices[0].message.content
    stop = whole[3:5]
    assert ask(stop=stop) == whole[: whole.index(stop)] == ask(stop=[stop, "never said"])


def test_what_is_stored_can_be_fetched_and_deleted(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="champion", messages=HELLO, store=True)
    found = client.chat.completions.retrieve(reply.id)
    assert found.choices[0].message.content == reply.choices[0].message.content
    assert (found.id, found.model) == (reply.id, reply.model)
    assert client.chat.completions.delete(reply.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(reply.id)
    not_stored = client.chat.completions.create(model="champion", messages=HELLO)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(not_stored.id)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["champion", "v0001"]
    assert client.models.retrieve("v0001").owned_by == "bb3x-ray"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="champion", messages=HELLO, temperature=9)
    assert caught.value.param == "temperature" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="champion", messages=HELLO, n=2)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="champion", messages=[])
