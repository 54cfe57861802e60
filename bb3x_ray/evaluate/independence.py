"""Law 11: parts that must be independent share no id."""

from collections.abc import Mapping, Set
from itertools import combinations

from bb3x_ray.schemas.errors import UserError


def check_independence(used: Mapping[str, Set[str]]) -> None:
    """`used` names the parts and the ids (people, prompts, conversations) that went into each.

    Raises UserError naming two parts that share ids, with one such id.
    """
    for (one, ids), (other, others) in combinations(used.items(), 2):
        shared = ids & others
        if shared:
            raise UserError(
                f"the parts {one!r} and {other!r} share {len(shared)} ids (one: {min(shared)}), so the "
                "judge would not be independent: take them out of one part, or start from a new storage root."
            )
