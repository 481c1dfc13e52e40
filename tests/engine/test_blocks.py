"""How a stage is cut for Ray."""

import pytest

pytest.importorskip("ray", reason="pip install 'dadpo-bench[ray]'")

from dadpo_bench.on_ray.stream import items_together


@pytest.mark.parametrize(
    ("items", "workers", "together"),
    [
        (7, 64, 1),
        (64 * 16, 64, 1),  # sixteen blocks of one for each worker
        (64 * 16 * 3, 64, 3),
        (1_000_000, 64, 8),
        (1_000, 2, 8),
    ],
)
def test_items_share_a_block_only_where_each_worker_has_many(items: int, workers: int, together: int) -> None:
    assert items_together(items, workers) == together
