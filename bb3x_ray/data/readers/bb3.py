"""BlenderBot 3's deployment release: one conversation a line, in numbered chunks.

    {"user_pseudo_id": …, "chat_id": …, "convo_id": …, "message_history": [
        {"text": …, "sender": "human", "human_message_id": …, "safety": {"duo_safety": "__ok__", …}},
        {"text": …, "sender": "bot", "bot_message_id": …, "is_liked": false, "is_disliked": true,
         "dislike_type": …, "memories": …, "search_query": …, "reward": …, "mturk": {…}}, …]}

The data card writes `Chatbot` and `Human`, and some keys in camel case (`isLiked`): both spellings are read
alike. All that the release says of a message beside its text and sender goes into `details`, under the
snake-case key. The release tells no times: messages are one microsecond apart.

What becomes an event beside the message: a thumb; an annotation for each crowdworker in `mturk`. A message
that answers "what went wrong?" is marked, and is the comment of the last thumb down before it.
"""

import hashlib
import math
import re
from typing import Any

import orjson

from bb3x_ray.data.parsed_rows import COLUMNS, Row
from bb3x_ray.schemas.event import IS_FEEDBACK

SOURCE = "bb3"
KEYS = ("message_history", "messageHistory")
_BASIS = f"recorded:{SOURCE}"
_IS_BOT = {"bot": True, "human": False, "Chatbot": True, "Human": False, "chatbot": True, "Bot": True}
_BOT, _CANNED = f"{SOURCE}:bot", f"{SOURCE}:canned"
_CAMEL = re.compile(r"[a-z]+(?:[A-Z][a-z0-9]*)+")
_CHUNK = re.compile(r"(?:^|[^0-9a-zA-Z]|chunk)(\d{1,4})$")
# A message that has no other keys is in the release's own spelling.
_KEYS = frozenset(
    """text sender bot_message_id human_message_id is_liked is_disliked dislike_type memories memory_decision
    memory_knowledge search_decision search_query search_knowledge search_knowledge_doc_titles
    search_knowledge_doc_content search_knowledge_doc_urls is_safety_controlled_response
    previous_interaction_failure from_model_crash is_dislike_feedback safety reward mturk""".split()
)
# What the release's words for a dislike mean in ours, by the first of these that occurs.
_REASONS = (
    ("topic", "off_topic"),
    ("ignor", "off_topic"),
    ("nonsens", "nonsensical"),
    ("incorrect", "nonsensical"),
    ("rude", "rude"),
    ("inappropriate", "rude"),
    ("spam", "spam"),
    ("ads", "spam"),
)
# What the crowdworkers' words mean in ours, by the first of these that occurs.
_LABELS = (
    ("inappropriate", "inappropriate"),
    ("rude", "inappropriate"),
    ("unsafe", "inappropriate"),
    ("offens", "inappropriate"),
    ("ignor", "ignoring"),
    ("topic", "off_topic"),
    ("nonsens", "nonsensical"),
    ("repeat", "repeating"),
    ("repetit", "repeating"),
    ("good", "good"),
)
_MOST_WORKERS = 10
_MARKED = (IS_FEEDBACK,)
_COMMENT = COLUMNS.index("comment")


class _SnakeKeys(dict[str, str]):
    """Key -> key in snake case. What hostile files invent is not remembered for ever."""

    def __missing__(self, key: str) -> str:
        snake = re.sub(r"([A-Z])", r"_\1", key).lower() if _CAMEL.fullmatch(key) else key
        if len(self) < 10_000:
            self[key] = snake
        return snake


_SNAKE = _SnakeKeys()


def chunk_of(name: str) -> int | None:
    """Number of the chunk that a file or folder of this name (`chunk_17.jsonl.gz`) holds, or None."""
    found = _CHUNK.search(name.split(".")[0])
    return int(found[1]) if found else None


def person_of(user_pseudo_id: Any) -> str:
    """The log's pseudonym of a person of the release."""
    return f"{SOURCE}-{_hash(f'person:{user_pseudo_id}')[:16]}"


def add(record: dict[str, Any], rows: list[Row], chunk: int | None) -> None:
    """Append the events of one conversation to `rows`.

    Raises ValueError with the reason why it is none; `rows` may then hold some of its events.
    """
    history = record.get("message_history")
    if history is None:
        history = record.get("messageHistory")
    if type(history) is not list or not history:
        raise ValueError("message_history must be a list of messages")
    conversation, person = _identity(record, history)
    known = _KEYS.issuperset
    disliked: int | None = None  # the place of the last thumb down in `rows`
    for index, message in enumerate(history):
        if type(message) is not dict:
            raise ValueError(f"message {index} must be an object")
        safety = message.get("safety")
        ours = known(message) and (type(safety) is not dict or "duo_safety" in safety)
        details = message if ours else _in_our_spelling(message)
        text, sender = details.pop("text", None), details.pop("sender", None)
        if type(text) is not str:
            raise ValueError(f"message {index}: text must be a string")
        is_bot = _IS_BOT.get(sender) if type(sender) is str else None
        if is_bot is None:
            raise ValueError(f"message {index}: sender must be bot, human, Chatbot or Human")
        if not is_bot:
            kind, name = "person", person
        elif details.get("is_safety_controlled_response") or details.get("from_model_crash"):
            kind, name = "canned", _CANNED
        else:
            kind, name = "external", _BOT
        message_id = f"{conversation}-{index}"
        about = _json(details, index) if details else None
        is_feedback = not is_bot and details.get("is_dislike_feedback") is True
        # fmt: off
        rows.append((
            f"{conversation}/{index}", "message", index, conversation, person, SOURCE, _BASIS, False,
            message_id, index, kind, name, text, None, None, _MARKED if is_feedback else (), "", chunk, about,
            "", None,
        ))
        # fmt: on
        if is_feedback and disliked is not None:
            rows[disliked] = _with_comment(rows[disliked], text)
        if is_bot and (details.get("is_liked") or details.get("is_disliked")):
            thumb = _thumb(details, index, conversation, person, message_id, chunk)
            if thumb and details.get("is_disliked"):
                disliked = len(rows)
            rows += thumb
        if "mturk" in details:
            rows += _annotations(details["mturk"], index, conversation, person, message_id, chunk)


def _thumb(
    details: dict[str, Any], index: int, conversation: str, person: str, message_id: str, chunk: int | None
) -> list[Row]:
    """The thumb on a bot's message, at the message's own time; none where both thumbs are set."""
    for key in ("is_liked", "is_disliked"):
        if details.get(key) not in (True, False, None):
            raise ValueError(f"message {index}: {key} must be true, false or null")
    if details.get("is_liked") and details.get("is_disliked"):
        return []  # it cannot be told which one stood; `details` keeps both
    rating = 1 if details.get("is_liked") else -1
    types = details.get("dislike_type") if rating == -1 else None
    about = orjson.dumps({"dislike_type": types}) if types else None
    # fmt: off
    return [(
        f"{conversation}/{index}/thumb/{rating}", "feedback", index, conversation, person, SOURCE, _BASIS,
        False, message_id, None, None, None, None, None, rating, reasons_of(types), "", chunk, about, "",
        None,
    )]
    # fmt: on


def _with_comment(thumb: Row, text: str) -> Row:
    """The thumb with one more answer to "what went wrong?"."""
    said = f"{thumb[_COMMENT]}\n{text}" if thumb[_COMMENT] else text
    return (*thumb[:_COMMENT], said, *thumb[_COMMENT + 1 :])


def _annotations(
    mturk: Any, index: int, conversation: str, person: str, message_id: str, chunk: int | None
) -> list[Row]:
    """One for each crowdworker. Who they are is not told: their names hold within the message only."""
    found: list[Row] = []
    for number, label in enumerate(labels_of(mturk), start=1):
        event_id = f"{conversation}/{index}/annotation/{number}/{label}"
        # fmt: off
        found.append((
            event_id, "annotation", index, conversation, person, SOURCE, _BASIS, False, message_id, None,
            "person", f"{SOURCE}-crowd-{number}", None, None, None, (label,), "", chunk, None, "", None,
        ))
        # fmt: on
    return found


def labels_of(mturk: Any) -> list[str]:
    """A label (schemas.conversation.LABELS) for each crowdworker of {annotation: number}.

    Whole numbers count workers. Shares are made the smallest number of workers, of at most ten, whose votes
    could have given them: {"good": 0.67, "ignoring": 0.33} -> good, good, ignoring. Anything else gives none.
    """
    if not isinstance(mturk, dict):
        return []
    votes = {
        name: float(number)
        for name, number in mturk.items()
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf
    }
    if any(number != round(number) for number in votes.values()) or sum(votes.values()) > _MOST_WORKERS:
        votes = _whole(votes)
    return [_label_of(name) for name, number in votes.items() for _ in range(round(number))]


def _whole(votes: dict[str, float]) -> dict[str, float]:
    total = sum(votes.values())
    sizes = range(1, _MOST_WORKERS + 1)
    near = (n for n in sizes if all(abs(v / total * n - round(v / total * n)) < 0.05 for v in votes.values()))
    workers = next(near, _MOST_WORKERS)
    return {name: round(number / total * workers) for name, number in votes.items()}


def _label_of(name: str) -> str:
    lowered = name.lower()
    return next((label for word, label in _LABELS if word in lowered), "other")


def reasons_of(dislike_type: Any) -> tuple[str, ...]:
    """Our reasons for the release's `dislike_type`: a text, several, or nothing."""
    if not dislike_type:
        return ()
    given = dislike_type if isinstance(dislike_type, list) else [dislike_type]
    lowered = [str(one).lower() for one in given]
    ours = [next((ours for word, ours in _REASONS if word in one), "other") for one in lowered]
    return tuple(dict.fromkeys(ours))


def _in_our_spelling(message: dict[str, Any]) -> dict[str, Any]:
    """Keys in snake case, annotations beside the rest."""
    details = {_SNAKE[key]: value for key, value in message.items()}
    inner = details.get("annotations")
    if type(inner) is dict:
        del details["annotations"]
        details.update({_SNAKE[key]: value for key, value in inner.items()})
    safety = details.get("safety")
    if type(safety) is dict:
        details["safety"] = {_SNAKE[key]: value for key, value in safety.items()}
    return details


def _json(details: dict[str, Any], index: int) -> bytes:
    """Arrow takes UTF-8 as it is."""
    try:
        return orjson.dumps(details)
    except TypeError:
        raise ValueError(f"message {index}: nested too deeply") from None


def _identity(record: dict[str, Any], history: list[Any]) -> tuple[str, str]:
    """(conversation id, person). Ids of the release and how the talk began make it this conversation.

    One that goes on in a later file stays the same; without ids, all that was said counts.
    """
    user = record.get("user_pseudo_id", record.get("userPseudoId"))
    ids = (user, record.get("chat_id", record.get("chatId")), record.get("convo_id", record.get("convoId")))
    for name, value in zip(("user_pseudo_id", "chat_id", "convo_id"), ids, strict=True):
        if not isinstance(value, str | int | None):
            raise ValueError(f"{name} must be a string or a number")
    known = ids[1] is not None or ids[2] is not None
    first = history[0]
    begin = first.get("text") if type(first) is dict else None
    try:
        said = orjson.dumps([*ids, begin if known else history])
    except TypeError:
        raise ValueError("nested too deeply") from None
    conversation = f"{SOURCE}-{hashlib.sha256(said).hexdigest()[:20]}"
    return conversation, person_of(user) if user is not None else person_of(f"of {conversation}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
