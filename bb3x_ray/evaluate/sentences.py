"""Sentences and words of chat text: by rules, the same for every side of a comparison."""

import re

_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*]*\s+|\n+")
_TERMINAL = re.compile(r"[.!?…][\"'”’)\]*]*$|[\U0001F300-\U0001FAFF☺❤️]$|[:;][-']?[)D(P]$")
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|approx|no)\.$", re.IGNORECASE)
_TOKEN = re.compile(r"\w+(?:['’]\w+)*")


def tokens(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return _TOKEN.findall(text.lower())


def word_count(text: str) -> int:
    """Words as separated by spaces."""
    return len(text.split())


def is_finished(text: str) -> bool:
    """Whether the text ends as sentences end (a closing mark, an emoji), not in mid-sentence."""
    return bool(_TERMINAL.search(text.strip()))


def sentences(text: str) -> list[str]:
    """The text's sentences in order; joined by spaces they hold all its words. Empty for blank text."""
    found: list[str] = []
    held = ""
    start = 0
    text = text.strip()
    for match in [*_END.finditer(text), None]:
        stop, after = (match.end(), match.end()) if match else (len(text), len(text))
        piece = f"{held} {text[start:stop].strip()}".strip()
        start = after
        # "1." or "Dr." is the beginning of a sentence, not one of its own.
        if match and (_ABBREVIATION.search(piece) or not re.search(r"[^\W\d_]", piece)):
            held = piece
        else:
            held = ""
            if piece:
                found.append(piece)
    return found
