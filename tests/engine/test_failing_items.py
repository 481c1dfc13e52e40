"""What a worker of Ray's makes of items that fail."""

import os
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

pytest.importorskip("ray", reason="pip install 'dadpo-bench[ray]'")

from dadpo_bench import __version__
from dadpo_bench.engine import Failure
from dadpo_bench.models.precision import compute_dtype
from dadpo_bench.on_ray import stream
from dadpo_bench.on_ray.cluster import Needs, cloudpickle


class Gone(BaseException):
    """The process ended."""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`worker(anew)`: one in this process, a divider, whose actor was made for the first time, or `anew`."""

    def gone(code: int) -> NoReturn:
        raise Gone

    def make(anew: bool) -> stream._Worker:
        context = SimpleNamespace(
            get_actor_id=lambda: "a", get_node_id=lambda: "n", was_current_actor_reconstructed=anew
        )
        monkeypatch.setattr(stream.ray, "get_runtime_context", lambda: context)
        needs = Needs(1, 0, str(compute_dtype()).removeprefix("torch."), __version__)
        return stream._Worker(cloudpickle.dumps(lambda: lambda item: 1 / item), needs)

    monkeypatch.setattr(os, "_exit", gone)
    return make


def told(worker: stream._Worker, item: Any) -> Any:
    return cloudpickle.loads(worker({"place": 0, "item": cloudpickle.dumps(item)})["outcome"])


def test_a_worker_whose_items_fail_behind_one_another_gives_them_to_a_new_process_once(worker: Any) -> None:
    first, second = worker(False), worker(True)
    assert [type(told(first, item)) for item in (0, 0, 1, 0, 0)] == [Failure, Failure, float, Failure, Failure]
    with pytest.raises(Gone):
        told(first, 0)
    # There they are told, so that a stage in which all fail ends.
    assert [type(told(second, 0)) for _ in range(9)] == [Failure] * 9


def test_an_item_that_cannot_be_read_there_is_told_as_its_failure(worker: Any) -> None:
    row = {"place": 0, "item": b"no pickle"}
    assert isinstance(cloudpickle.loads(worker(False)(row)["outcome"]), Failure)
