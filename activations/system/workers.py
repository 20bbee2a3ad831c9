"""Work on one thing after another, side by side, without holding more than a few at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_turn(
    work: Callable[[_In], _Out], things: Iterable[_In], side_by_side: bool = True
) -> Iterator[_Out]:
    """What `work` makes of each thing, in order.

    `things` are taken one by one: two are worked on while the next is made. Not `side_by_side`
    where each is small, as handing it over then takes longer than the work.
    """
    if not side_by_side:
        yield from map(work, things)
        return
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 2)) as pool:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
