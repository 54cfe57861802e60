"""Human preference: counts, and intervals that are honest about how few people there were."""

from bb3x_ray.evaluate.human_preference import human_preferences
from bb3x_ray.evaluate.human_preference_report import preference_table
from bb3x_ray.schemas.comparison import Choice, HumanChoice


def chose(choice: Choice, person: str = "ada", a: str = "v0002", b: str = "v0001") -> HumanChoice:
    return HumanChoice(a, b, choice, person, f"c-{person}", False, 0)


def test_the_order_in_which_versions_were_shown_does_not_matter() -> None:
    (found,) = human_preferences(
        [chose("a"), chose("b", a="v0001", b="v0002"), chose("b"), chose("both"), chose("neither")]
    )
    assert (found.newer, found.older) == ("v0002", "v0001")
    assert (found.for_newer, found.for_older, found.both, found.neither) == (2, 1, 1, 1)
    assert found.net.value == 0.2 and found.choices == 5 and found.people == 1


def test_many_people_settle_it_and_few_do_not() -> None:
    many = [chose("b" if n % 5 == 0 else "a", f"p{n}") for n in range(60)]
    (clear,) = human_preferences(many)
    assert clear.is_clear and clear.net.low > 0.2
    (few,) = human_preferences([chose("a", f"p{n}") for n in range(5)])
    assert not few.is_clear
    even = [chose("a" if n % 2 else "b", f"p{n}") for n in range(60)]
    assert not human_preferences(even)[0].is_clear


def test_one_person_who_chooses_often_is_one_person() -> None:
    often = [chose("a", "eager") for _ in range(200)] + [chose("b", f"p{n}") for n in range(20)]
    (found,) = human_preferences(often)
    assert found.net.value > 0.5 and found.net.low < 0 and not found.is_clear


def test_whoever_is_not_trusted_does_not_count() -> None:
    said = [chose("a", f"p{n}") for n in range(20)] + [chose("b", f"troll{n}") for n in range(20)]
    (believed,) = human_preferences(said, weight=lambda person: 0.0 if person.startswith("troll") else 1.0)
    assert believed.net.value == 1.0 and believed.choices == 40
    (nobody,) = human_preferences(said, weight=lambda person: 0.0)
    assert (nobody.net.low, nobody.net.high) == (-1.0, 1.0)


def test_each_pair_of_versions_has_its_row_the_newest_first() -> None:
    found = human_preferences(
        [chose("a"), chose("a", a="v0010", b="v0009"), chose("a", a="v0009", b="v0002")]
    )
    assert [(one.newer, one.older) for one in found] == [
        ("v0010", "v0009"),
        ("v0009", "v0002"),
        ("v0002", "v0001"),
    ]
    assert preference_table(found).row_count == 3
