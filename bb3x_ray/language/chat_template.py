"""From a conversation to token ids and back: which tokens are whose words.

A chat template is rendered around marks instead of around the words themselves. Its pieces between
the marks are tokenised as the template's author meant them, special tokens and all; the words are
tokenised apart, as plain text. So nobody can fake a role by typing `<|im_end|>`, the tokens of every
message are known exactly, and what was generated after a prompt is what is trained on later.
"""

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bb3x_ray.schemas.conversation import Message
from bb3x_ray.schemas.errors import UserError

_MARK = re.compile(r"qz(\d+)words")
# "Today" for every template that asks: a prompt and its training row may be made on different days. The
# library takes neither a date nor a function, so a macro of that name goes before the template.
_TODAY = datetime(2024, 7, 26)
_SIGNS = "%Y %y %m %-m %B %b %d %-d %j %A %a %H %I %M %S %p".split()
_DATED = "".join(f" | replace('{sign}', '{_TODAY.strftime(sign)}')" for sign in _SIGNS)
_FIXED_DATE = "{% macro strftime_now(format) %}{{ format" + _DATED + " }}{% endmacro %}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one message says; white space around `text` is not kept.

    role   "system", "user" or "assistant"
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """`input_ids[start:end]` are exactly the words of one turn.

    end_of_turn   index of the token that ends the turn; None where the next turn has the same role
                  (the two are one turn to the template), or where the template ends no such turn
    """

    start: int
    end: int
    end_of_turn: int | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids, with one span for each turn that was given, in order."""

    input_ids: list[int]
    spans: list[Span]


def turns_of(messages: Sequence[Message], system_prompt: str = "") -> list[Turn]:
    """One turn a message, after a system turn if there is a prompt.

    So message i of n is turn `i - n`, and so is its span.
    """
    system = [Turn("system", system_prompt)] if system_prompt.strip() else []
    return system + [Turn("user" if m.author.is_person else "assistant", m.text) for m in messages]


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse templates under which a conversation changes its past as it goes on.

    Raises UserError when there is no template, when the rendering of n turns is not the beginning of
    that of n + 1 turns, when the prompt for a reply is not the beginning of the rendering with the
    reply, or when no special token ends a reply.
    """
    end_of_turn_id(tokenizer)
    talk = [Turn("user" if i % 2 == 0 else "assistant", "") for i in range(5)]
    for system in ([], [Turn("system", "")]):
        whole = _render_text(tokenizer, [*system, *talk], False)
        for n in range(1, len(talk)):
            turns = [*system, *talk[:n]]
            prompt = _render_text(tokenizer, turns, talk[n].role == "assistant")
            if not (whole.startswith(_render_text(tokenizer, turns, False)) and whole.startswith(prompt)):
                raise UserError(
                    "the model's chat template rewrites earlier turns as a conversation goes on, so it "
                    "would be trained on what it never saw; set a chat_template that keeps them (ChatML)."
                )


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The special token that ends a reply, as the template writes it. Raises UserError where none does."""
    return _end_of_turn_id(tokenizer, _template(tokenizer))


def render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], known: dict[str, list[int]] | None = None
) -> Rendered:
    """Token ids of a whole conversation. `known`: from `known_words`, for who renders many.

    Neighbours of one role become one turn of the template, joined by a newline; each keeps its own
    span. For a list whose last turn is not the assistant's, `render([*turns, reply])` begins with
    `prompt_ids(turns)`.
    """
    return _render(tokenizer, turns, False, {} if known is None else known)


def known_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, list[int]]:
    """Texts as turns hold them -> `plain_ids` of each, tokenised together: several times as fast."""
    words = list({text.strip() for text in texts} - {""})
    added = _control_ids(tokenizer, len(tokenizer))
    backend = tokenizer.backend_tokenizer
    # A tokenizer.json may ask for both; `tokenizer.encode` switches them off for itself alone.
    backend.no_truncation()
    backend.no_padding()
    encoded = backend.encode_batch_fast(words, add_special_tokens=False)
    ids = ((word, one.ids) for word, one in zip(words, encoded, strict=True))
    return {word: of if added.isdisjoint(of) else plain_ids(tokenizer, word) for word, of in ids}


def prompt_ids(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], max_tokens: int) -> list[int]:
    """Token ids up to where the assistant's reply begins, at most `max_tokens`.

    What does not fit is dropped from the oldest turn on, never the system turn and never the last
    one, whose text loses its beginning as the last resort. Raises UserError when not even the
    template and the system prompt fit.
    """
    system = [turn for turn in turns[:1] if turn.role == "system"]
    talk = list(turns[len(system) :])
    known: dict[str, list[int]] = {}

    def without(oldest: int) -> Rendered:
        return _render(tokenizer, [*system, *talk[oldest:]], True, known)

    # Without one turn more the prompt is never longer, so the first that fits is found by bisection.
    drops = range(max(1, len(talk)))
    first = bisect.bisect_left(drops, True, key=lambda n: len(without(n).input_ids) <= max_tokens)
    if first < len(drops):
        if first > 0 and talk[first].role == "assistant" and first + 1 < len(talk):
            first += 1  # the answer to a question that is gone
        return without(first).input_ids
    rendered = without(drops[-1])
    return _cut(rendered, len(rendered.input_ids) - max_tokens)


def _cut(rendered: Rendered, excess: int) -> list[int]:
    """The ids without the first `excess` tokens of the last turn's words."""
    ids, last = rendered.input_ids, rendered.spans[-1] if rendered.spans else Span(0, 0, None)
    if last.end - last.start < excess:
        raise UserError(
            f"the chat template and the system prompt leave no room for a message: they are {excess} tokens "
            "too long; shorten chat.system_prompt or raise chat.max_context_tokens."
        )
    return ids[: last.start] + ids[last.start + excess :]


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of `text` as plain words: no special or added token is ever read from it."""
    if not text:
        return []
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    added = _control_ids(tokenizer, len(tokenizer))
    if added.isdisjoint(ids):
        return ids
    # The tokenizer's own steps without the one that looks for added tokens.
    backend = tokenizer.backend_tokenizer
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    words = [text]
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    tokens = [token.id for word in words for token in backend.model.tokenize(word)]
    return [token for token in tokens if token not in added]


def _render(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], ask: bool, known: dict[str, list[int]]
) -> Rendered:
    """Render and tokenise; `known` keeps the ids of words between calls."""
    end_id = end_of_turn_id(tokenizer)
    # re.split with one group: piece, number of the run of turns, piece, …, piece
    pieces = _MARK.split(_render_text(tokenizer, turns, ask))
    size = len(tokenizer)  # added tokens change what a piece is read as
    ids = list(_template_ids(tokenizer, pieces[0], size))
    spans: list[Span] = []
    for run, after in zip(_runs(turns), pieces[2::2], strict=True):
        for place, turn in enumerate(run):
            if place:
                ids += plain_ids(tokenizer, "\n")
            text = turn.text.strip()
            if text not in known:
                known[text] = plain_ids(tokenizer, text)
            spans.append(Span(len(ids), len(ids) + len(known[text]), None))
            ids += known[text]
        tail = _template_ids(tokenizer, after, size)
        if end_id in tail:
            last = spans[-1]
            spans[-1] = Span(last.start, last.end, len(ids) + tail.index(end_id))
        ids += tail
    return Rendered(ids, spans)


def _runs(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Neighbours of one role, together."""
    runs: list[list[Turn]] = []
    for turn in turns:
        if runs and runs[-1][0].role == turn.role:
            runs[-1].append(turn)
        else:
            runs.append([turn])
    return runs


def _render_text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], ask: bool) -> str:
    """The template's text with a mark for the words of each run of turns; `ask` opens the reply.

    Some templates take no system turn, or no conversation that the assistant begins. The system
    turn's mark then stands in the first user turn; an empty user turn goes before the assistant's.
    """
    roles = tuple(run[0].role for run in _runs(turns))
    return _render_roles(tokenizer, _template(tokenizer), roles, ask)


@lru_cache(maxsize=512)
def _render_roles(
    tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...], ask: bool
) -> str:
    runs = [(role, f"qz{i}words") for i, role in enumerate(roles)]
    try:
        text = _apply(tokenizer, runs, ask)
    except TemplateError:
        try:
            text = _apply(tokenizer, _humoured(runs), ask)
        except TemplateError:
            order = ", ".join(roles)
            raise UserError(
                f"the model's chat template refuses turns in the order {order}; use a model whose template "
                "takes them, or set its chat_template to ChatML."
            ) from None
    if _MARK.findall(text) != [str(i) for i in range(len(runs))]:
        raise UserError(
            "the model's chat template leaves out, repeats or reorders turns, so a reply cannot be found "
            "in what it renders; set a plainer chat_template (ChatML will do)."
        )
    return text


def _humoured(runs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same words, in an order that templates without system turn and with user first accept."""
    system = runs[0][1] if runs and runs[0][0] == "system" else ""
    talk = runs[1:] if system else runs
    if talk and talk[0][0] == "user":
        return [("user", f"{system}\n\n{talk[0][1]}".strip()), *talk[1:]]
    return [("user", system), *talk]


def _apply(tokenizer: PreTrainedTokenizerBase, runs: list[tuple[str, str]], ask: bool) -> str:
    messages = [{"role": role, "content": words} for role, words in runs]
    text: Any = tokenizer.apply_chat_template(
        messages,
        chat_template=_FIXED_DATE + _template(tokenizer),
        tokenize=False,
        add_generation_prompt=ask,
    )
    return str(text)


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    if not isinstance(tokenizer.chat_template, str):
        raise UserError(
            "the model has no chat template (or several); `bb3x models import` gives plain prompts to one "
            "that has none, or set one `chat_template` in its tokenizer_config.json."
        )
    if not tokenizer.is_fast:
        raise UserError(
            "the model's tokenizer has no tokenizer.json; convert it with transformers and save it again."
        )
    return tokenizer.chat_template


@lru_cache(maxsize=16)
def _end_of_turn_id(tokenizer: PreTrainedTokenizerBase, template: str) -> int:
    text = _render_text(tokenizer, [Turn("user", ""), Turn("assistant", "")], False)
    added = _control_ids(tokenizer, len(tokenizer))
    for token in tokenizer.encode(_MARK.split(text)[-1], add_special_tokens=False):
        if token in added:
            return int(token)
    raise UserError(
        "the model's chat template writes no special token after a reply, so the model cannot learn where "
        "to stop; set a chat_template that does (ChatML does)."
    )


@lru_cache(maxsize=16)
def _control_ids(tokenizer: PreTrainedTokenizerBase, size: int) -> frozenset[int]:
    """Ids of added tokens, special or not. Some vocabularies add white space, which is no control token."""
    added = {
        i for i, token in tokenizer.added_tokens_decoder.items() if token.special or token.content.strip()
    }
    return frozenset(added | set(tokenizer.all_special_ids))


@lru_cache(maxsize=128)
def _template_ids(tokenizer: PreTrainedTokenizerBase, piece: str, size: int) -> tuple[int, ...]:
    return tuple(tokenizer.encode(piece, add_special_tokens=False)) if piece else ()
