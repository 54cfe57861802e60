"""Long conversations as overlapping windows: every labelled message in exactly one of them, behind as much of
what was said before as fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from bb3x_ray.language.chat_template import Rendered
from bb3x_ray.schemas.conversation import Message


@dataclass(frozen=True, slots=True)
class Window:
    """Messages from `first` on; those in `labelled` (indices in the conversation) are learned from here.

    rendered   tokens, with one span a message of the window
    """

    rendered: Rendered
    first: int
    labelled: tuple[int, ...]


def cut_into_windows(
    messages: Sequence[Message],
    labelled: Sequence[int],
    render_from: Callable[[int], Rendered],
    max_tokens: int,
) -> tuple[list[Window], list[int]]:
    """(windows, labelled messages that fit into none). Where everything fits there is one window.

    render_from   the tokens of the conversation from a message on, with one span a message
    max_tokens    every labelled message of a window ends within so many tokens

    A later window begins at most half a window before the first message that it labels, with a message of
    the person; it begins right with the message that is answered where no more fits.
    """
    windows: list[Window] = []
    unfit: list[int] = []
    rendered = whole = render_from(0)
    first, left = 0, list(labelled)
    while left:
        fits = _fitting(rendered, first, left, max_tokens)
        answered = _answered(messages, left[0])
        if fits:
            windows.append(Window(rendered, first, tuple(fits)))
            left = left[len(fits) :]
        elif first < answered:
            first = answered
            rendered = render_from(first)
            continue
        else:
            unfit.append(left.pop(0))
        if left:
            first = _begin(messages, whole, left[0], max_tokens // 2)
            rendered = render_from(first)
    return windows, unfit


def _fitting(rendered: Rendered, first: int, left: Sequence[int], max_tokens: int) -> list[int]:
    """The messages of `left`, up to the first that does not end, end of turn included, within the window."""

    def fits(index: int) -> bool:
        span = rendered.spans[index - first]
        return (span.end if span.end_of_turn is None else span.end_of_turn + 1) <= max_tokens

    return list(takewhile(fits, left))


def _answered(messages: Sequence[Message], index: int) -> int:
    """The person's last message before `index`; `index` itself where there is none."""
    return next((i for i in range(index - 1, -1, -1) if messages[i].author.is_person), index)


def _begin(messages: Sequence[Message], whole: Rendered, index: int, context: int) -> int:
    """The earliest message of the person from which at most `context` tokens lead to message `index`."""
    latest = _answered(messages, index)
    near = (
        i
        for i in range(latest)
        if messages[i].author.is_person and whole.spans[index].start - whole.spans[i].start <= context
    )
    return next(near, latest)
