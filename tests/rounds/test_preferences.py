"""The report's section about human preference, from the log."""

from bb3x_ray.rounds.preferences import human_preference_section
from bb3x_ray.storage import Storage
from tests.data.make import commit
from tests.data.test_comparisons import compared


def test_it_says_how_people_chose_and_leaves_simulated_ones_out(storage: Storage) -> None:
    assert human_preference_section(storage) == []
    commit(storage, compared(1, "a", simulated=True))
    assert human_preference_section(storage) == []
    commit(storage, compared(2, "a"), compared(3, "b", person="bob"), compared(4, "a", person="cy"))
    (section,) = human_preference_section(storage)
    assert "v0002 over v0001: net +33.3 points" in section
    assert "3 people in 3 comparisons (2 to 1, 0 both, 0 neither), too few people" in section
