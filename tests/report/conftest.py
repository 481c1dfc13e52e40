"""One browser for a module's tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.report.browsers import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    with chromium() as started:
        yield started
