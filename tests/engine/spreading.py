"""An engine of several workers in this process, to whom all goes and from whom all comes pickled, as on a cluster."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import cloudpickle

from dadpo_bench.engine import LocalEngine


class Spread(LocalEngine):
    """Two workers that take turns."""

    spreads = True

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[int] = []
        """Questions of each share of a judge's, in the order in which they were worked on."""
        self.sent: list[bytes] = []
        self.closed = False

    def map(self, make: Callable[[], Any], items: Sequence[Any], name: Callable[[Any], str]) -> Iterator[Any]:
        """As of `Engine`."""
        self.sent.append(cloudpickle.dumps(make))

        def together() -> Callable[[Any], Any]:
            workers = cycle([cloudpickle.loads(self.sent[-1])() for _ in range(2)])

            def work(item: Any) -> Any:
                self.shares.append(len(getattr(item, "questions", ())))
                return _over(next(workers)(_over(item)))

            return work

        yield from super().map(together, items, name)

    def close(self) -> None:
        """As of `Engine`."""
        self.closed = True


def _over(value: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(value))
