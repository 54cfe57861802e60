"""What is plain to see of a reply, of the talk before it, and of what the person said next, as numbers.

All are about 0 to 1. They know no bot and no data set; the few word lists are everyday English, so in another
language they say nothing and the rest has to do.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import log1p

import numpy as np

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_FIRST_PERSON = frozenset("i i'm im i've i'd i'll my me mine we our us".split())
_SECOND_PERSON = frozenset("you your you're youre yours u".split())
_ASKING = frozenset("what why who where when how which do does did are is can could would have".split())
# Doubt, refusal and complaint; delight and consent. Of the person: how the talk goes; of a reply: its tone.
_COLD = frozenset(
    "no not don't dont didn't doesn't can't cannot never nothing why what huh wrong sense boring bored stop "
    "bot robot machine stupid dumb already again understand weird confused irrelevant mean bad bye asked "
    "question sorry off random nonsense".split()
)
_WARM = frozenset(
    "yes yeah yep nice cool great good thanks thank wow haha lol love awesome interesting too sure ok okay "
    "fun same really true right amazing".split()
)
_LONG = 40  # words; more are as good as that many

REPLY_NUMBERS = (
    *("length", "log_length", "short", "empty", "ended", "broken_off", "asks", "ends_asking", "only_asks"),
    *("first_person", "second_person", "says_of_itself", "distinct", "triples_again", "doubles_again"),
    *("sentence_again", "sentences", "word_length", "cold", "warm", "lines"),
    *("turns", "log_turns", "opens", "answers_first", "nothing_heard", "heard_length", "heard_log_length"),
    *("heard_asks", "heard_cold", "heard_warm", "heard_word_length", "asked_and_asks", "asked_and_only_asks"),
    *("asked_and_short", "copied", "copied_long", "novel_long", "person_length"),
    *("said_before", "like_before", "held_before", "triples_before", "like_last", "heard_before"),
)
AFTER_NUMBERS = (
    *(
        "gone",
        "length",
        "log_length",
        "short",
        "asks",
        "cold",
        "warm",
        "any_cold",
        "any_warm",
        "shouts",
        "!!",
    ),
    *(
        "asks_when_asked",
        "answers_when_asked",
        "longer_than_heard",
        "like_heard",
        "said_before",
        "like_before",
    ),
    *("takes_up_novel", "takes_up_reply"),
)


def reply_numbers(context: str, reply: str) -> list[float]:
    """REPLY_NUMBERS of a reply; `context` as in Pair: turns, newest first, one a line, the person's first."""
    turns = context.split("\n") if context else []
    said, heard = _words(reply), _words(turns[0]) if turns else []
    ours, theirs = [_words(turn) for turn in turns[1::2]], [_words(turn) for turn in turns[2::2]]
    return [
        *_of_reply(reply, said),
        *_of_talk(len(turns), turns[0] if turns else "", heard, reply, said, theirs),
        *_of_repeating(said, heard, ours, theirs),
    ]


def _of_reply(reply: str, said: list[str]) -> list[float]:
    n, length = max(1, len(said)), min(len(said), _LONG) / _LONG
    ended = reply.rstrip()[-1:] in set(".!?")
    sentences = [part for part in _SENTENCE.findall(reply) if _words(part)]
    distinct = {tuple(_words(part)) for part in sentences}
    doubles, triples = _runs(said, 2), _runs(said, 3)
    own = [part for part in sentences if "?" not in part and _FIRST_PERSON & set(_words(part))]
    return [
        length,
        _log_length(said),
        float(len(said) < 3),
        float(not said),
        float(ended),
        0.0 if ended else length,
        float("?" in reply),
        float(reply.rstrip().endswith("?")),
        float(all("?" in part for part in sentences)),
        min(1.0, _share(said, _FIRST_PERSON) * 4),
        min(1.0, _share(said, _SECOND_PERSON) * 4),
        float(bool(own)),
        len(set(said)) / n,
        1 - len(set(triples)) / max(1, len(triples)),
        1 - len(set(doubles)) / max(1, len(doubles)),
        float(len(distinct) < len(sentences)),
        min(len(sentences), 4) / 4,
        _word_length(said),
        min(1.0, _share(said, _COLD) * 2),
        min(1.0, _share(said, _WARM) * 2),
        float("\n" in reply.strip()),
    ]


def _of_talk(
    turns: int, message: str, heard: list[str], reply: str, said: list[str], theirs: Sequence[list[str]]
) -> list[float]:
    asked = _asks(message, heard)
    asks, only = "?" in reply, all("?" in part for part in _SENTENCE.findall(reply) if _words(part))
    new = set(said) - set(heard)
    return [
        min(turns, 16) / 16,
        log1p(min(turns, 16)) / 3,
        float(turns == 0),
        float(turns == 1),
        float(not heard),
        min(len(heard), _LONG) / _LONG,
        _log_length(heard),
        asked,
        min(1.0, _share(heard, _COLD) * 2),
        min(1.0, _share(heard, _WARM) * 2),
        _word_length(heard),
        asked * asks,
        asked * only,
        asked * (len(said) < 3),
        _held(said, heard),
        min(3, sum(len(word) > 4 for word in set(said) & set(heard))) / 3,
        min(6, sum(len(word) > 4 for word in new)) / 6,
        float(np.mean([min(len(turn), _LONG) for turn in theirs])) / _LONG if theirs else 0.0,
    ]


def _of_repeating(
    said: list[str], heard: list[str], ours: Sequence[list[str]], theirs: Sequence[list[str]]
) -> list[float]:
    triples = _runs(said, 3)
    return [
        float(said in ours),
        max((_alike(said, turn) for turn in ours), default=0.0),
        max((_held(said, turn) for turn in ours), default=0.0),
        max((_held(triples, _runs(turn, 3)) for turn in ours), default=0.0) if triples else 0.0,
        _alike(said, ours[0]) if ours else 0.0,
        max((_alike(heard, turn) for turn in theirs), default=0.0),
    ]


def after_numbers(context: str, reply: str, after: str) -> list[float]:
    """AFTER_NUMBERS of what the person said next, "" for nothing any more."""
    turns = context.split("\n") if context else []
    said, heard, next_ = _words(reply), _words(turns[0]) if turns else [], _words(after)
    theirs = [heard, *(_words(turn) for turn in turns[2::2])]
    asked, letters = "?" in reply, [letter for letter in after if letter.isalpha()]
    new = set(said) - set(heard)
    asks = _asks(after, next_)
    return [
        float(not after),
        min(len(next_), _LONG) / _LONG,
        _log_length(next_),
        float(0 < len(next_) < 3),
        asks,
        min(1.0, _share(next_, _COLD) * 2),
        min(1.0, _share(next_, _WARM) * 2),
        float(bool(_COLD & set(next_))),
        float(bool(_WARM & set(next_))),
        float(sum(letter.isupper() for letter in letters) > max(2.0, 0.6 * len(letters))),
        float("??" in after or "!!" in after),
        asks * asked,
        float(bool(after) and asked and not asks),
        _log_length(next_) - _log_length(heard) if after else 0.0,
        _alike(next_, heard) if next_ else 0.0,
        float(bool(next_) and next_ in theirs),
        max(_alike(next_, turn) for turn in theirs) if next_ else 0.0,
        min(3, sum(len(word) > 3 for word in set(next_) & new)) / 3,
        _alike(next_, said) if next_ else 0.0,
    ]


@lru_cache(maxsize=4096)  # a turn is in the context of many replies
def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _runs(words: list[str], length: int) -> list[str]:
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]


def _share(words: list[str], of: frozenset[str]) -> float:
    return sum(word in of for word in words) / max(1, len(words))


def _held(words: list[str], other: list[str]) -> float:
    """Which share of the words the other has too."""
    own = set(words)
    return len(own & set(other)) / max(1, len(own))


def _alike(words: list[str], other: list[str]) -> float:
    """Words in common of all words."""
    own, others = set(words), set(other)
    return len(own & others) / max(1, len(own | others))


def _asks(text: str, words: list[str]) -> float:
    return float("?" in text or bool(words and words[0] in _ASKING))


def _log_length(words: list[str]) -> float:
    return log1p(min(len(words), 50)) / 4


def _word_length(words: list[str]) -> float:
    return min(12.0, sum(map(len, words)) / len(words)) / 12 if words else 0.0
