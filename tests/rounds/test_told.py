from bb3x_ray.rounds.told import told


def test_items_come_as_they_are_and_how_far_it_is_is_said_until_the_last() -> None:
    said: list[str] = []
    items = list(told(["ab", "c", "def"], 6, said.append, "{} of {} letters", len, seconds=0))
    assert items == ["ab", "c", "def"]
    assert said == ["2 of 6 letters, about 0 min left", "3 of 6 letters, about 0 min left"]


def test_short_work_says_nothing() -> None:
    said: list[str] = []
    assert list(told(range(3), 3, said.append, "{} of {}", seconds=60)) == [0, 1, 2] and said == []
