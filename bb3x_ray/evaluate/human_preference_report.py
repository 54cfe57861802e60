"""Preferences as a table."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from bb3x_ray.evaluate.human_preference import FEWEST_PEOPLE, Preference


def preference_table(preferences: Sequence[Preference]) -> Table:
    table = Table(
        "newer",
        "older",
        title="What people prefer, not knowing which is which",
        title_justify="left",
        caption="Net: share that prefers the newer version minus share that prefers the older one, in "
        f"percent, with a 95 % interval over people; fewer than {FEWEST_PEOPLE} people settle nothing.",
        caption_justify="left",
        box=box.SIMPLE,
    )
    for head in ("people", "choices", "newer", "older", "both", "neither", "net [95 %]"):
        table.add_column(head, justify="right")
    table.add_column("")
    for one in preferences:
        counts = (one.people, one.choices, one.for_newer, one.for_older, one.both, one.neither)
        table.add_row(one.newer, one.older, *map(str, counts), _net(one), _said(one))
    return table


def _net(one: Preference) -> str:
    return f"{100 * one.net.value:+.1f} [{100 * one.net.low:+.1f}, {100 * one.net.high:+.1f}]"


def _said(one: Preference) -> str:
    if one.people < FEWEST_PEOPLE:
        return "too few people"
    if not one.is_clear:
        return "no difference seen"
    return f"{one.newer if one.net.value > 0 else one.older} is preferred"
