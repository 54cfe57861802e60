"""What the server answers, as the OpenAPI document tells it. The routes build plain dicts of these shapes."""

from typing import Any, Literal

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    error: ErrorDetail


class ReplyMessage(BaseModel):
    role: Literal["assistant"]
    content: str


class Choice(BaseModel):
    index: int
    message: ReplyMessage
    logprobs: None
    finish_reason: str | None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """`feedback_token` proves the right to rate this one completion. `usage` is null for one of the past.
    `canned` is the kind of trouble of a reply that is not the model's own, or failure (`failed`)."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    model_version: str
    choices: list[Choice]
    usage: Usage | None
    feedback_token: str
    canned: str | None = None
    failed: bool = False


class CompletionDeleted(BaseModel):
    """The whole conversation goes, whose parts say each other again."""

    id: str
    object: Literal["chat.completion.deleted"]
    deleted: Literal[True]
    conversation_id: str


class ComparedReply(BaseModel):
    slot: Literal["a", "b"]
    content: str


class Comparison(BaseModel):
    """`conversation_id`: what the comparison is listed as, and deleted by."""

    id: str
    object: Literal["comparison"]
    conversation_id: str
    replies: list[ComparedReply]


class ChoiceTaken(BaseModel):
    """`versions`: which slot was whose."""

    id: str
    object: Literal["comparison.choice"]
    choice: Literal["a", "b", "both", "neither"]
    versions: dict[Literal["a", "b"], str]


class FeedbackTaken(BaseModel):
    id: str
    object: Literal["feedback"]
    completion_id: str
    rating: Literal[1, -1] | None
    reasons: list[str]
    source: str


class ConsentTaken(BaseModel):
    id: str
    object: Literal["consent"]
    store: bool
    scope: Literal["conversation", "everything"]


class ErasureTaken(BaseModel):
    id: str
    object: Literal["erasure"]
    status: Literal["accepted"]


class SavedMessage(BaseModel):
    """`content` is null where the person did not consent to keeping it."""

    id: str
    role: Literal["user", "assistant"]
    content: str | None
    created: int
    model_version: str | None


class SavedConversation(BaseModel):
    """A comparison ends with both replies; their versions are told when the choice was made."""

    id: str
    object: Literal["conversation", "comparison"]
    created: int
    messages: list[SavedMessage]
    choice: Literal["a", "b", "both", "neither"] | None = None


class ConversationList(BaseModel):
    object: Literal["list"]
    data: list[SavedConversation]


class ConversationDeleted(BaseModel):
    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class SavedMemory(BaseModel):
    id: str
    text: str
    about: str
    created: int


class MemoryList(BaseModel):
    object: Literal["list"]
    data: list[SavedMemory]


class MemoryDeleted(BaseModel):
    id: str
    object: Literal["memory.deleted"]
    deleted: Literal[True]


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    champion: str
    data: list[Model]


class Version(BaseModel):
    """`version` of the package; `candidate` answers a part of the conversations, if there is one."""

    version: str
    model_version: str
    candidate: str | None


class Health(BaseModel):
    status: Literal["ok", "failed"]
    model_version: str


def _error(words: str) -> dict[str, Any]:
    return {"model": Error, "description": words}


# Any route may answer these; what a route adds stands with it.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("The request is not as described."),
    401: _error("The server asks for a key, and this is none of its own."),
    404: _error("There is no such thing, or not for this person."),
    405: _error("This path does not take that method."),
    408: _error("The body came too slowly."),
    409: _error("The same Idempotency-Key came with another body before."),
    413: _error("The body is too large."),
    429: _error("Too many requests, tokens, or people; `Retry-After` says when to come again."),
    431: _error("The headers are too large."),
    500: _error("The server failed to answer."),
    503: _error("The log cannot be written or read now."),
}
