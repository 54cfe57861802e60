"""What clients send, and the shape of errors: OpenAI's chat completions, and feedback.

Unknown fields are ignored, as clients send many. No answer ever repeats what was sent (law 10).
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from bb3x_ray.schemas.conversation import REASONS

CHAMPION = "champion"
MAX_MESSAGES = 200
MAX_COMMENT_CHARS = 2000


class ApiError(Exception):
    """Ends a request with an error in OpenAI's shape. The message never holds what a person wrote."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind, param, code)
        self.headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Sent(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, frozen=True)


class _Exact(_Sent):
    """Unknown fields are refused: a misspelt `scope` or `reasons` must not be taken for none."""

    model_config = ConfigDict(extra="forbid")


def _join_parts(content: Any) -> Any:
    """`content` may be a list of text parts: {"type": "text", "text": …}."""
    if not isinstance(content, list):
        return content
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    # A number is not a string, so pydantic refuses the whole in its own words.
    return "".join(texts) if len(texts) == len(content) else 0


def _whole_characters(text: str) -> str:
    # JSON can carry half a surrogate pair, which no tokenizer and no file takes.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("string_unicode", "text must be valid Unicode")
    return text


def _known_reasons(reasons: list[str]) -> list[str]:
    if any(reason not in REASONS for reason in reasons):
        raise PydanticCustomError("reasons", f"choose from {', '.join(REASONS)}")
    return reasons


Text = Annotated[str, AfterValidator(_whole_characters)]
# As OpenAI limits metadata.
Label = Annotated[Text, Field(max_length=64)]
Note = Annotated[Text, Field(max_length=512)]
_MOST_REASONS = len(REASONS)
Reasons = Annotated[
    list[str],
    Field(max_length=_MOST_REASONS),
    AfterValidator(_known_reasons),
    WithJsonSchema(
        {"type": "array", "items": {"type": "string", "enum": list(REASONS)}, "maxItems": _MOST_REASONS}
    ),
]


_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_TEXT_OR_PARTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]}


class SentMessage(_Sent):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Text, BeforeValidator(_join_parts), WithJsonSchema(_TEXT_OR_PARTS)]


class Metadata(_Sent):
    conversation_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    simulated: Literal["true", "false"] | None = None
    trace: Literal["true", "false"] | None = None  # what every module did, in the answer
    apology: Literal["true", "false"] | None = None  # where the model fails: words to show, not an error


class StreamOptions(_Sent):
    include_usage: bool = False


class ChatRequest(_Sent):
    messages: list[SentMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str = Field(CHAMPION, max_length=100)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    user: str | None = Field(None, max_length=256)
    store: bool | None = None
    metadata: Metadata | None = None

    def stops(self) -> list[str]:
        """The stop strings, without empty ones. Raises ApiError for more than four."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > 4 or any(len(stop) > 100 for stop in stops):
            raise ApiError(400, "stop: give at most 4 strings of at most 100 characters.", param="stop")
        return [stop for stop in stops if stop]


class FeedbackRequest(_Exact):
    """`user` of the conversation, or the completion's `token`, prove the right to rate it.

    rating     1, -1, or null to take back what was said before; a later feedback replaces an earlier one
    source     short name of the client
    metadata   taken as every client sends it, and not kept
    """

    completion_id: str = Field(max_length=250)
    rating: Literal[1, -1] | None
    reasons: Reasons = []
    comment: Text = Field("", max_length=MAX_COMMENT_CHARS)
    correction: Text = Field("", max_length=MAX_COMMENT_CHARS)
    user: str | None = Field(None, max_length=256)
    token: str | None = Field(None, max_length=100)
    source: str = Field("", pattern=r"^[A-Za-z0-9_.-]{0,32}$")
    metadata: dict[Label, Note] | None = Field(None, max_length=16)
    sensitive: bool | None = None  # of a canned reply: whether the topic was as sensitive as it took it for

    def distinct_reasons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.reasons))


class CompareRequest(_Sent):
    """Two versions are to answer the same messages. `store`: whether the words are kept with the choice."""

    messages: list[SentMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    user: str | None = Field(None, max_length=256)
    store: bool | None = None
    metadata: Metadata | None = None


class ChoiceRequest(_Exact):
    """Which of two replies a person prefers."""

    choice: Literal["a", "b", "both", "neither"]
    user: str | None = Field(None, max_length=256)


class ConsentRequest(_Exact):
    """`store`: whether what was said may teach. About one conversation, or everything the user ever said.
    `completion_id`: of a completion, or of a comparison."""

    user: str | None = Field(None, max_length=256)
    completion_id: str = Field(max_length=250)
    store: bool
    scope: Literal["conversation", "everything"] = "conversation"


class ErasureRequest(_Exact):
    """`completion_id`: of any completion or comparison that was written for this user, which proves that it
    is they who ask."""

    user: str | None = Field(None, max_length=256)
    completion_id: str = Field(max_length=250)


_MODELS = (
    SentMessage,
    Metadata,
    StreamOptions,
    ChatRequest,
    FeedbackRequest,
    CompareRequest,
    ChoiceRequest,
    ConsentRequest,
    ErasureRequest,
)
_FIELDS = {name for model in _MODELS for name in model.model_fields}


def explain(errors: list[Any]) -> ApiError:
    """The first of pydantic's errors as ours: field and reason, never the value or a key that was sent."""
    error = errors[0]
    if error["type"] in ("json_invalid", "value_error.jsondecode"):
        return ApiError(400, "The body is not valid JSON.", code="invalid_json")
    if error["type"] == "extra_forbidden":
        return ApiError(
            400, "The body has a field that is not known here; look at its spelling.", code="unknown_field"
        )
    if error["loc"][0] in ("header", "path"):
        where = str(error["loc"][1])  # as we call it
    else:
        where = ".".join(str(part) for part in error["loc"] if isinstance(part, int) or part in _FIELDS)
    message = (
        f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}."
        if where
        else "The body must be a JSON object, sent as application/json."
    )
    return ApiError(400, message, param=where or None)
