"""Work on threads, taken in order."""

import threading
from collections.abc import Iterator

import pytest

from bb3x_ray.data.in_order import threads


@pytest.mark.parametrize("count", [1, 2, 7])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    with threads(count) as crew:
        assert list(crew.in_order(lambda number: number * number, range(50))) == [n * n for n in range(50)]
        assert list(crew.in_order(str, [])) == []


def test_later_work_ends_while_earlier_work_is_under_way() -> None:
    second = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second.wait(60)
        else:
            second.set()
        return number

    with threads(2) as crew:
        assert list(crew.in_order(work, [0, 1])) == [0, 1]


def test_no_more_is_drawn_than_is_soon_taken() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    with threads(2) as crew:
        results = crew.in_order(str, items())
        assert next(results) == "0" and len(drawn) == 3
        assert next(results) == "1" and len(drawn) == 4


@pytest.mark.parametrize("count", [1, 3])
def test_what_work_raises_is_raised_at_its_place(count: int) -> None:
    def work(number: int) -> float:
        return 1 / (number - 2)

    with threads(count) as crew:
        results = crew.in_order(work, range(5))
        assert [next(results), next(results)] == [-0.5, -1.0]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_work_may_be_given_results_of_the_same_threads() -> None:
    with threads(2) as crew:
        inner = crew.in_order(lambda number: number + 1, range(20))
        assert list(crew.in_order(lambda number: number * 2, inner)) == [2 * (n + 1) for n in range(20)]
