"""Items that fail and items that do not; trainings side by side, and told to stop."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dadpo_bench.engine import LocalEngine, open_engine, side_by_side
from dadpo_bench.errors import Interrupted, UserError, WorkError
from dadpo_bench.recipe import EngineChoice


class Wide(LocalEngine):
    """An engine that trains four at a time."""

    trainings = 4

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def close(self) -> None:
        self.closed = True


def mapped(worker: Callable[[int], int], items: list[int]) -> Iterator[tuple[int, int]]:
    return LocalEngine().map(lambda: worker, items, lambda item: f"item {item}")


def test_a_bad_item_keeps_no_other_from_its_result_and_is_named() -> None:
    found: list[tuple[int, int]] = []
    with pytest.raises(WorkError, match=r"^1 of 4 failed: item 2 \(ZeroDivisionError: .*tries the rest again"):
        found.extend(mapped(lambda item: 6 // (item - 2), [1, 2, 3, 4]))
    assert found == [(1, -6), (3, 6), (4, 3)]


def test_where_everything_fails_one_does_not_wait_for_the_last() -> None:
    tried: list[int] = []

    def worker(item: int) -> int:
        tried.append(item)
        raise ValueError("no")

    with pytest.raises(WorkError, match=r"^3 of 100 failed: item 0, and 2 others \(ValueError: no\)"):
        list(mapped(worker, list(range(100))))
    assert tried == [0, 1, 2]


@pytest.mark.parametrize("error", [UserError("mend it"), WorkError("a full disk"), KeyboardInterrupt()])
def test_what_concerns_all_items_ends_all_at_once(error: BaseException) -> None:
    tried: list[int] = []

    def worker(item: int) -> int:
        tried.append(item)
        raise error

    with pytest.raises(type(error)):
        list(mapped(worker, [1, 2]))
    assert tried == [1]


def test_the_only_item_raises_what_it_raised() -> None:
    def worker(_: int) -> int:
        raise OSError(28, "No space left")

    with pytest.raises(OSError, match="No space left"):
        list(mapped(worker, [1]))


def test_works_side_by_side_return_in_their_order() -> None:
    together = threading.Barrier(4, timeout=30)

    def work(place: int) -> int:
        together.wait()  # none goes on before all four have begun
        return place

    assert side_by_side([lambda place=place: work(place) for place in range(4)], Wide(), threading.Event()) == [
        0,
        1,
        2,
        3,
    ]


def test_one_that_fails_stops_the_others_where_they_can_go_on() -> None:
    stopping = threading.Event()

    def fails() -> Any:
        raise WorkError("a full disk")

    def goes_on() -> Any:
        assert stopping.wait(30)
        raise KeyboardInterrupt

    works = [goes_on, fails, *[goes_on] * 4]
    with pytest.raises(WorkError, match="a full disk"):
        side_by_side(works, Wide(), stopping)


def test_steps_that_are_lost_are_told_before_a_plain_stop() -> None:
    stopping = threading.Event()
    stopping.set()

    def lost() -> Any:
        raise Interrupted("goes on behind step 3")

    with pytest.raises(KeyboardInterrupt):
        side_by_side([lost, lost], Wide(), stopping)  # neither was begun
    with pytest.raises(Interrupted, match="step 3"):
        side_by_side([lost, time.time], Wide(), threading.Event())


def test_options_of_accelerate_are_no_ray_clusters() -> None:
    with pytest.raises(UserError, match=r"engine\.gpus_per_training"):
        open_engine(EngineChoice(name="ray"), ["--num_processes", "2"])
