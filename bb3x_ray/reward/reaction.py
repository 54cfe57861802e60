"""How a person took a reply, by what they said next: plain signs, for the evidence on that reply."""

import re
from typing import Literal, get_args

# complains   of the reply, or asks what it was meant to say
# repeats     says the message again that the reply should have answered
# thanks      for it, agrees, or laughs
Reaction = Literal["complains", "repeats", "thanks"]
REACTIONS: tuple[Reaction, ...] = get_args(Reaction)

_WORD = re.compile(r"[a-z']+")
_COMPLAINT = re.compile(
    r"\b(?:what\?+|huh|pardon"
    r"|(?:that|this|it)(?:'s| is| was)? (?:not (?:what|an answer|true|right)|wrong|nonsense)"
    r"|(?:makes?|made|making) no sense|you(?:'ve| have)? (?:already|just) (?:said|asked|told)"
    r"|i(?:'ve| have)? (?:already|just) (?:said|asked|told|answered)"
    r"|(?:did|do)(?:n't| not) (?:answer|listen|ask)"
    r"|(?:don't|do not|didn't) (?:understand|get (?:you|it))|stop (?:it|that|saying|asking|repeating)|shut up"
    r"|stupid|dumb|boring|weird|rude|are you (?:a |an )?(?:bot|robot|real|ok|kidding|drunk|crazy)"
    r"|answer (?:me|my|the)|off topic|irrelevant|why (?:do|are) you (?:keep|say|ask|repeat))",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"\b(?:thanks?|thank you|cool|great|awesome|nice|interesting|wow|amazing|good (?:one|point|idea|to know)"
    r"|haha\w*|lol|i agree|me too|same here|that(?:'s| is) (?:right|true|funny|good|nice|great))\b",
    re.IGNORECASE,
)
_SAME = 0.75  # share of a message's words that were in the one before: said again


def reactions(message: str, after: str) -> frozenset[Reaction]:
    """The signs in `after`, what the person said next, who had said `message` before the reply.

    >>> sorted(reactions("do you like tea?", "That's not what I asked. Do you like tea?"))
    ['complains', 'repeats']
    """
    found: set[Reaction] = set()
    if _COMPLAINT.search(after):
        found.add("complains")
    elif _THANKS.search(after):
        found.add("thanks")
    before, now = set(_WORD.findall(message.lower())), set(_WORD.findall(after.lower()))
    if len(before) >= 3 and len(before & now) / len(before) >= _SAME:
        found.add("repeats")
    return frozenset(found)
