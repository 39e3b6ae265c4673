"""Signs of life of long work: what makes progress says so, and whoever watches can tell slow from stuck."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Signs of life are cheap to give and not worth sending more often.
_EVERY_S = 1.0


class _Heart:
    """Where signs of life go, if anybody watches."""

    def __init__(self) -> None:
        self.say: Callable[[], None] | None = None
        self.last_s = 0.0


_heart = _Heart()


def beat() -> None:
    """Some progress was made: a frame decoded, a window judged. Costs next to nothing where nobody watches."""
    if _heart.say is not None and (now_s := time.monotonic()) - _heart.last_s >= _EVERY_S:
        _heart.last_s = now_s
        _heart.say()


def watch(say: Callable[[], None]) -> None:
    """Have `say` called, about once a second at most, while this process makes progress. Threads may call it."""
    _heart.say = say
