"""What a reply, its context and the next message are to a classifier: one row of numbers.

A row has two parts. The first is known of every reply; the second is hindsight, and all zeros where there is
none (`after` is None), so that one model can take both kinds.
"""

from collections.abc import Sequence

import numpy as np

from bb3x_ray.classify.encoder import Encoder
from bb3x_ray.classify.pairs import Pair, novel_words
from bb3x_ray.classify.surface import AFTER_NUMBERS, REPLY_NUMBERS, after_numbers, reply_numbers

# A row, with D the encoder's width:
# REPLY_NUMBERS, cosines of the message with the reply and with its novel words, message × reply [D],
# reply [D]
# 1 for hindsight, AFTER_NUMBERS, cosines of next message with message and reply, next message [D]
REPLY_WIDTH = len(REPLY_NUMBERS) + 2
AFTER_WIDTH = 1 + len(AFTER_NUMBERS) + 2
# A product of unit vectors has entries of about 1/D, a vector of about 1/√D: made about as large.
_PRODUCT, _VECTOR = 4.0, 0.5


def features(pairs: Sequence[Pair], encoder: Encoder) -> np.ndarray:
    """float32 [N, 3·D + REPLY_WIDTH + AFTER_WIDTH], 5 KB a row with the embedded encoder.

    Four texts of a pair are embedded: the message (the context's first line), the reply, its words that the
    message does not have, since what is copied is always near, and the next message.
    """
    if not pairs:
        return np.zeros((0, 3 * encoder.embed(["."]).shape[1] + REPLY_WIDTH + AFTER_WIDTH), np.float32)
    heard, said = [pair.context.partition("\n")[0] for pair in pairs], [pair.reply for pair in pairs]
    # Silence is near to nothing.
    message = encoder.embed(heard) * np.array([[float(bool(text))] for text in heard], np.float32)
    reply = encoder.embed(said)
    plain = np.array([reply_numbers(pair.context, pair.reply) for pair in pairs], np.float32)
    product = message * reply
    novel = [" ".join(novel_words(c, r)) or "." for c, r in zip(heard, said, strict=True)]
    near = [product.sum(1, keepdims=True), (message * encoder.embed(novel)).sum(1, keepdims=True)]
    return np.hstack(
        [plain, *near, product * _PRODUCT, reply * _VECTOR, *_hindsight(pairs, message, reply, encoder)]
    )


def _hindsight(
    pairs: Sequence[Pair], message: np.ndarray, reply: np.ndarray, encoder: Encoder
) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.zeros((len(pairs), AFTER_WIDTH), np.float32)
    after = np.zeros_like(reply)
    known = [row for row, pair in enumerate(pairs) if pair.after is not None]
    spoken = [row for row in known if pairs[row].after]
    if spoken:
        after[spoken] = encoder.embed([pairs[row].after or "" for row in spoken])
    for row in known:
        pair = pairs[row]
        near = after[row] @ message[row], after[row] @ reply[row]
        numbers[row] = 1, *after_numbers(pair.context, pair.reply, pair.after or ""), *near
    return numbers, after * _VECTOR
