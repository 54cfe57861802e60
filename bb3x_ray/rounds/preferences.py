"""What people chose in blind comparisons, for the report of a run."""

from bb3x_ray.data.comparisons import comparisons
from bb3x_ray.evaluate.human_preference import FEWEST_PEOPLE, Preference, human_preferences
from bb3x_ray.storage import Storage


def human_preference_section(storage: Storage) -> list[str]:
    """Markdown sections: one, or none where no person has compared versions yet. Simulated people are left
    out: what they prefer is known, and is reported as the truth."""
    found = human_preferences(one for one in comparisons(storage) if not one.simulated)
    if not found:
        return []
    lines = "\n".join(map(_line, found))
    return [f"## What people prefer, not knowing which version is which\n\n{lines}"]


def _line(one: Preference) -> str:
    low, high = 100 * one.net.low, 100 * one.net.high
    few = f", too few people to settle anything (under {FEWEST_PEOPLE})" if one.people < FEWEST_PEOPLE else ""
    return (
        f"- {one.newer} over {one.older}: net {100 * one.net.value:+.1f} points [{low:+.1f}, {high:+.1f}] by "
        f"{one.people} people in {one.choices} comparisons ({one.for_newer} to {one.for_older}, {one.both} "
        f"both, {one.neither} neither){few}"
    )
