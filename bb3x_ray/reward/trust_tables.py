"""What many seeds of a benchmark come to: means with 95 % bootstrap intervals over seeds, paired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bb3x_ray.reward.poison import Poisoned
from bb3x_ray.reward.trust_benchmark import CLEAN, Measured
from bb3x_ray.schemas.learning import Interval

RESAMPLES = 2000
NONE = "none"


def interval(values: np.ndarray) -> Interval:
    """The mean of values [seeds], nan left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    return over_seeds(lambda rows: float(values[rows].mean()), len(values))


def over_seeds(statistic: Callable[[np.ndarray], float], seeds: int) -> Interval:
    """statistic(all seeds), and between which values it lies when seeds are drawn anew."""
    random = np.random.default_rng(0)
    drawn = [statistic(random.integers(seeds, size=seeds)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(statistic(np.arange(seeds)), float(low), float(high))


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method: its error by kind, over all kinds, and how much of the trolls' harm is left.

    left          mean over kinds of (error − clean) ÷ (none − clean)
    left_pooled   the mean of the former over kinds ÷ the mean of the latter: kinds that do little harm count
                  little
    """

    method: str
    errors: dict[str, Interval]
    mean: Interval
    left: Interval
    left_pooled: Interval
    helpers_distrusted: float
    trolls_distrusted: dict[str, float]


def method_rows(measured: Sequence[Measured]) -> list[MethodRow]:
    """A row a method, in the order in which they were measured; the methods `clean` and `none` are needed.

    Raises ValueError when a mix lacks one.
    """
    kinds = list(dict.fromkeys(m.kind for m in measured))
    methods = list(dict.fromkeys(m.method for m in measured))
    seeds = sorted({m.seed for m in measured})
    place = {seed: i for i, seed in enumerate(seeds)}
    shape = (len(methods), len(kinds), len(seeds))
    error, helpers, trolls = (np.full(shape, np.nan) for _ in range(3))
    for m in measured:
        at = methods.index(m.method), kinds.index(m.kind), place[m.seed]
        error[at], helpers[at], trolls[at] = m.error, m.helpers_distrusted, m.trolls_distrusted
    if CLEAN not in methods or NONE not in methods or np.isnan(error).any():
        raise ValueError("every mix must be measured with every method, clean and none among them")
    clean, none = error[methods.index(CLEAN)], error[methods.index(NONE)]
    rows = []
    for i, method in enumerate(methods):
        own = error[i]

        def left(at: np.ndarray, own: np.ndarray = own) -> float:
            above = (own - clean)[:, at].mean(1)
            return float(np.mean(above / (none - clean)[:, at].mean(1)))

        def pooled(at: np.ndarray, own: np.ndarray = own) -> float:
            return float((own - clean)[:, at].mean() / (none - clean)[:, at].mean())

        rows.append(
            MethodRow(
                method,
                {kind: interval(own[k]) for k, kind in enumerate(kinds)},
                interval(own.mean(0)),
                over_seeds(left, len(seeds)),
                over_seeds(pooled, len(seeds)),
                float(np.nanmean(helpers[i])) if not np.isnan(helpers[i]).all() else float("nan"),
                {
                    kind: float(np.nanmean(trolls[i, k]))
                    if not np.isnan(trolls[i, k]).all()
                    else float("nan")
                    for k, kind in enumerate(kinds)
                },
            )
        )
    return rows


def best_method(measured: Sequence[Measured]) -> str:
    """The one that leaves the least of the trolls' harm. Choose on other seeds than you report."""
    rows = [row for row in method_rows(measured) if row.method not in (CLEAN, NONE)]
    return min(rows, key=lambda row: row.left.value).method


@dataclass(frozen=True, slots=True)
class PoisonRow:
    """Share of right labels, to imitate and to avoid, for one kind and share of trolls; what of it is lost
    against the same turns with everybody honest, or with trolls' thumbs absent; what is gained over trust
    off. All of it with trust on, but `off`."""

    kind: str
    trolls: float
    right: dict[str, dict[str, Interval]]  # imitate | avoid -> honest | absent | on | off
    lost: dict[str, Interval]
    lost_to_absent: dict[str, Interval]
    gained: dict[str, Interval]
    turns: dict[str, dict[str, float]]  # the same: how many


def poison_rows(found: Sequence[Poisoned]) -> list[PoisonRow]:
    rows = []
    for kind, share in dict.fromkeys((f.kind, f.trolls) for f in found):
        own = [f for f in found if (f.kind, f.trolls) == (kind, share)]
        sides: dict[str, list[Poisoned]] = {
            "honest": [f for f in own if f.people == "honest"],
            "absent": [f for f in own if f.people == "absent"],
            "on": [f for f in own if f.people == "trolling" and f.trust],
            "off": [f for f in own if f.people == "trolling" and not f.trust],
        }
        values = {
            label: {
                side: np.array([getattr(f, f"{label}_right") for f in sorted(these, key=lambda f: f.seed)])
                for side, these in sides.items()
            }
            for label in ("imitate", "avoid")
        }
        rows.append(
            PoisonRow(
                kind,
                share,
                {label: {side: interval(v) for side, v in of.items()} for label, of in values.items()},
                {label: interval(of["on"] - of["honest"]) for label, of in values.items()},
                {label: interval(of["on"] - of["absent"]) for label, of in values.items()},
                {label: interval(of["on"] - of["off"]) for label, of in values.items()},
                {
                    label: {
                        s: float(np.mean([getattr(f, label) for f in these])) for s, these in sides.items()
                    }
                    for label in values
                },
            )
        )
    return rows
