"""Turns to scores in one process: buckets of rows of like length, an error where a row has no score."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bb3x_ray.classify.pairs import Pair
from bb3x_ray.reward.turns import with_evidence
from bb3x_ray.schemas.learning import SCORED_SCHEMA

# Of a bucket, at most: enough that texts are padded to texts of their length, few enough to lose few by a
# crash; of few turns so few that they make `_BUCKETS`, for several actors to share.
ROWS = 512
_FEWEST, _BUCKETS = 32, 16
_COPIED = ("conversation_id", "message_id", "person", "rating", "trusted")
_GOOD, _FRESH, _UNSAFE, _UNSAFE_HEARD = range(4)

# (context, reply) [N] -> P(the reply is unsafe) [N]; a message is the reply in an empty context
Unsafe = Callable[[Sequence[Pair]], np.ndarray]


class RewardModel(Protocol):
    """P(good) of pairs, and the share of good ones among what it learned from."""

    base_rate: float

    def predict(self, pairs: Sequence[Pair]) -> np.ndarray: ...


def buckets(turns: pa.Table) -> list[np.ndarray]:
    """Places of rows, shortest first, in buckets that depend on the turns alone."""
    if not turns.num_rows:
        return []
    lengths = sum(
        pc.fill_null(pc.binary_length(turns[name]), 0).to_numpy().astype(np.int64)
        for name in ("context", "reply")
    )
    order = np.argsort(lengths, kind="stable")
    size = min(ROWS, max(_FEWEST, -(-len(order) // _BUCKETS)))
    return np.split(order, range(size, len(order), size))


class RowScorer:
    """Makes rows of SCORED_SCHEMA of turns (TURNS_SCHEMA), in their order.

    version     what scores are stamped with
    unsafe      asked about replies and the messages that they answer; None: nobody is asked
    max_chars   longer texts are not scored
    """

    def __init__(self, model: RewardModel, version: str, unsafe: Unsafe | None, max_chars: int) -> None:
        self._model, self._version, self._unsafe, self._max_chars = model, version, unsafe, max_chars

    def __call__(self, turns: pa.Table) -> pa.Table:
        """Raises what the model raises only where it raises on whatever it is given."""
        values, errors = self._values_and_errors(
            *(_texts(turns[name]) for name in ("context", "reply", "after"))
        )
        good = [
            score if error else with_evidence(score, evidence, self._model.base_rate)
            for score, error, evidence in zip(
                values[:, _GOOD].tolist(), errors, turns["evidence"].to_pylist(), strict=True
            )
        ]
        columns = {name: turns[name] for name in _COPIED}
        columns |= {
            "good": pa.array(good, pa.float64()),
            "fresh": pa.array(values[:, _FRESH]),
            "unsafe": pa.array(values[:, _UNSAFE], from_pandas=True),  # NaN becomes null
            "unsafe_heard": pa.array(values[:, _UNSAFE_HEARD], from_pandas=True),
            "error": pa.array(errors, pa.string()),
            "reward_version": pa.array([self._version] * len(turns), pa.string()),
        }
        return pa.table([columns[name] for name in SCORED_SCHEMA.names], schema=SCORED_SCHEMA)

    def _values_and_errors(
        self, contexts: Sequence["_Text"], replies: Sequence["_Text"], afters: Sequence["_Text"]
    ) -> tuple[np.ndarray, list[str]]:
        """float64 [N, 4] and why a row has no score, "" where it has one."""
        errors, places, pairs = [], [], []
        for place, (context, reply, after) in enumerate(zip(contexts, replies, afters, strict=True)):
            errors.append(self._unfit(context, reply, after))
            if not errors[-1]:
                assert isinstance(context, str) and isinstance(reply, str) and not isinstance(after, bytes)
                places.append(place)
                pairs.append(Pair(context, reply, after=after))
        values = np.tile([0.5, 0.5, np.nan, np.nan], (len(errors), 1))
        scores, raised = self._bisected(pairs)
        for place, score, error in zip(places, scores, raised, strict=True):
            if not error and not np.isfinite(score[: 4 if self._unsafe else 2]).all():
                error = "score is not a number"
            errors[place] = error
            if not error:
                values[place] = score
        return values, errors

    def _unfit(self, context: "_Text", reply: "_Text", after: "_Text") -> str:
        if context is None or reply is None:
            return "no text"
        if any(isinstance(text, bytes) for text in (context, reply, after)):
            return "not UTF-8"
        if max(len(context), len(reply), len(after or "")) > self._max_chars:
            return "too long"
        return ""

    def _bisected(self, pairs: list[Pair]) -> tuple[np.ndarray, list[str]]:
        """Scores [N, 4] and errors: where the model raises, halves are tried down to the row that makes it.

        The error tells the exception's kind only: its words may quote the row.
        """
        first: Exception | None = None

        def score(part: list[Pair]) -> tuple[np.ndarray, list[str]]:
            nonlocal first
            try:
                return self._values(part), [""] * len(part)
            except Exception as error:
                first = first or error
                if len(part) == 1:
                    return np.full((1, 4), np.nan), [f"the model raised {type(error).__name__}"]
            half = len(part) // 2
            (one, its_errors), (other, others) = score(part[:half]), score(part[half:])
            return np.vstack([one, other]), its_errors + others

        scores, errors = score(pairs)
        if first is not None and all(errors) and not self._works():
            raise first  # not a row's fault
        return scores, errors

    def _works(self) -> bool:
        """Whether the model scores anything at all."""
        try:
            self._values([Pair("Hello", "Hello.")])
        except Exception:
            return False
        return True

    def _values(self, pairs: list[Pair]) -> np.ndarray:
        values = np.full((len(pairs), 4), np.nan)
        if not pairs:
            return values
        values[:, _GOOD] = self._model.predict(pairs)
        hides = any(pair.after is not None for pair in pairs)
        fresh = [replace(pair, after=None) for pair in pairs] if hides else pairs
        values[:, _FRESH] = self._model.predict(fresh) if hides else values[:, _GOOD]
        if self._unsafe is not None:
            values[:, _UNSAFE] = self._unsafe(fresh)
            heard = [Pair("", pair.context.partition("\n")[0]) for pair in pairs]
            values[:, _UNSAFE_HEARD] = self._unsafe(heard)
        return values


_Text = str | bytes | None  # bytes: what cannot be decoded


def _texts(column: pa.ChunkedArray) -> list[_Text]:
    try:
        texts: list[_Text] = column.to_pylist()
    except UnicodeDecodeError:
        texts = [_decoded(text) for text in column.cast(pa.binary()).to_pylist()]
    return texts


def _decoded(text: bytes | None) -> _Text:
    try:
        return text if text is None else text.decode()
    except UnicodeDecodeError:
        return text
