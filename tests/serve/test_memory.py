"""What is remembered of people: bounded, by use, nothing twice, across replicas, and gone when they ask."""

import json
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bb3x_ray.serve.memory import OFFERED, Memories, Memory, offered, says_something_new

NOW = 1


def test_a_memory_outlives_the_store_that_made_it(tmp_path: Path) -> None:
    made = Memories(tmp_path).add("ada", "I have a  dog\ncalled Rex.", "person", NOW, "c1")
    assert made is not None and made.text == "I have a dog called Rex."
    assert Memories(tmp_path).of("ada") == [made]
    assert Memories(tmp_path).of("bob") == []
    assert "ada" not in "".join(str(path) for path in tmp_path.rglob("*"))


def test_what_says_nothing_new_is_rejected(tmp_path: Path) -> None:
    store = Memories(tmp_path)
    assert store.add("ada", "I like green tea.", "person", NOW)
    for again in ("I like green tea", "My tea is green!", "I like it.", "", "  "):
        assert store.add("ada", again, "person", NOW) is None, again
    assert store.add("ada", "I like green tea.", "bot", NOW), "the bot may like it, too"
    assert store.add("ada", "I work as a carpenter.", "person", NOW)
    assert not says_something_new("I like the green tea that you like", ["I like green tea."])


def test_at_most_so_many_are_kept_and_the_unused_go_first(tmp_path: Path) -> None:
    store = Memories(tmp_path, most=3)
    first, second, third = (
        store.add("ada", f"I like {thing}.", "person", NOW) for thing in ("apples", "pears", "plums")
    )
    assert first and second and third
    assert store.next_turn("ada", [first.id]) == 1
    store.add("ada", "I like cherries.", "person", NOW)
    assert [m.text for m in store.of("ada")] == ["I like apples.", "I like plums.", "I like cherries."]
    assert [m.used for m in store.of("ada")] == [1, 0, 1]


def test_one_memory_a_conversation_or_all_of_a_person_can_be_forgotten(tmp_path: Path) -> None:
    store = Memories(tmp_path)
    made = [
        store.add("ada", f"I like {thing}.", "person", NOW, talk)
        for thing, talk in (("apples", "c1"), ("pears", "c1"), ("plums", "c2"), ("nuts", "c3"))
    ]
    store.add("bob", "I like apples.", "person", NOW, "c1")
    assert made[0] and store.forget("ada", made[0].id) == 1
    assert store.forget("ada", made[0].id) == 0 and store.forget("nobody", "mem-1") == 0
    assert store.forget("ada", conversation="c1") == 1
    assert [m.text for m in store.of("ada")] == ["I like plums.", "I like nuts."]
    assert store.forget("ada") == 2 and store.of("ada") == []
    assert len(store.of("bob")) == 1
    assert "plums" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_a_turn_under_way_brings_nobody_back(tmp_path: Path) -> None:
    store = Memories(tmp_path)
    began = 1_000
    store.forget("ada")
    assert store.add("ada", "I like apples.", "person", began) is None
    assert store.add("ada", "I like apples.", "person", 1 << 62), "who comes back is remembered again"


def test_a_turn_under_way_brings_no_conversation_back(tmp_path: Path) -> None:
    store, began, later = Memories(tmp_path), 1_000, 1 << 62
    assert store.forget("ada", conversation="c1") == 0, "of which nothing was remembered yet"
    again = Memories(tmp_path)
    assert again.add("ada", "I like apples.", "person", began, "c1") is None
    assert again.add("ada", "I like pears.", "person", began, "c2")
    assert again.add("ada", "I like plums.", "person", later, "c1"), "who goes on is remembered again"
    assert "c1" not in {
        key for path in tmp_path.rglob("*.json") for key in json.loads(path.read_text())["forgotten"]
    }


def test_what_was_said_after_somebody_asked_to_be_forgotten_stays(tmp_path: Path) -> None:
    store = Memories(tmp_path)
    for at, text, talk in (
        (10, "I like apples.", "c1"),
        (30, "I like pears.", "c1"),
        (30, "I like plums.", "c2"),
    ):
        assert store.add("ada", text, "person", at, talk)
    assert store.forget("ada", conversation="c1", until=20) == 1
    assert store.forget("ada", until=20) == 0
    assert [m.text for m in store.of("ada")] == ["I like pears.", "I like plums."]
    assert store.add("ada", "I like nuts.", "person", 20) is None
    assert store.add("ada", "I like nuts.", "person", 21)


def _fill(task: tuple[Path, int]) -> None:
    folder, replica = task
    store = Memories(folder)
    for number in range(10):
        assert store.add("ada", f"I know{replica}x{number}", "person", NOW)
        store.next_turn("ada")


def test_several_replicas_lose_nothing_of_each_others(tmp_path: Path) -> None:
    with get_context("fork").Pool(3) as replicas:
        replicas.map(_fill, [(tmp_path, replica) for replica in range(3)])
    store = Memories(tmp_path)
    assert len(store.of("ada")) == 30
    assert store.next_turn("ada") == 31
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: store.add("bob", f"thing{n}", "person", NOW), range(20)))
    assert len(store.of("bob")) == 20


def test_of_many_those_most_like_the_talk_are_offered() -> None:
    many = [Memory(f"m{n}", f"I own item{n} and a house", "person", n, 0) for n in range(60)]
    assert offered(many[: OFFERED - 1], "anything") == many[: OFFERED - 1]
    some = offered(many, "Person: tell me of item7 and item41 in the house")
    assert len(some) == OFFERED and {"m7", "m41"} <= {m.id for m in some}
    assert [m.created for m in some] == sorted(m.created for m in some)
    assert len(offered(many, "")) == OFFERED
