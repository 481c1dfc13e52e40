"""Tiny models and pairs, computed in fp32 on any machine."""

from pathlib import Path

import pytest

from dadpo_bench.models import precision
from dadpo_bench.types import Example
from tests.tiny import build_tiny_model
from tests.trainers.jobs import pairs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1)


@pytest.fixture(autouse=True)
def _in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")
    precision.compute_dtype.cache_clear()


@pytest.fixture(scope="module")
def examples(tiny: Path, teacher: Path) -> list[Example]:
    """Pairs with the signals of the tiny model as reference and of another one as teacher."""
    return pairs(tiny, teacher)
