"""How far each tensor of one version lies from another's, with two tensors in memory at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bb3x_ray.language.weights import WeightFiles


@dataclass(frozen=True, slots=True)
class Change:
    """relative   ‖b − a‖ / ‖a‖ in float32; infinite where the two cannot be compared: `why` says it"""

    name: str
    shape: tuple[int, ...]
    relative: float
    why: str = ""


def changes(first: WeightFiles, second: WeightFiles) -> Iterator[Change]:
    """One for every tensor of either, in the order of their names; adapters are added in passing."""
    for name in sorted({*first.shapes, *second.shapes}):
        ours, theirs = first.shapes.get(name), second.shapes.get(name)
        if ours is None or theirs is None:
            shape, where = (theirs or ours or ()), "second" if ours is None else "first"
            yield Change(name, shape, math.inf, f"only in the {where}")
        elif ours != theirs:
            yield Change(name, theirs, math.inf, f"{'×'.join(map(str, ours))} in the first")
        else:
            a, b = first.read(name).float(), second.read(name).float()
            norm, moved = float(a.norm()), float((b - a).norm())
            yield Change(name, ours, moved / norm if norm else (math.inf if moved else 0.0))
