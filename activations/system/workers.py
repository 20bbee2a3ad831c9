"""Work on one thing after another, side by side, without holding more than a few at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_turn(
    work: Callable[[_In], _Out], things: Iterable[_In], together: int = 1
) -> Iterator[_Out]:
    """What `work` makes of each thing, in order.

    `things` are taken one by one: two are worked on while the next is made; of small ones,
    `together` at a time, as handing one over takes some time too.
    """

    def worked(some: list[_In]) -> list[_Out]:
        return [work(thing) for thing in some]

    waiting: deque[Future[list[_Out]]] = deque()
    left = iter(things)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 2)) as pool:
        while some := list(islice(left, together)):
            waiting.append(pool.submit(worked, some))
            if len(waiting) > 1:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
