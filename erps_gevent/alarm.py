"""One timer for the deadlines of many, because a timer for each call takes as long as sending it.

It is set to the earliest deadline that it has heard of. Most calls are answered long before, and nobody tells it: when
it rings it asks what the earliest is now, and is set again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from gevent.hub import Hub


class Alarm:
    """Rings in `hub`, at the earliest deadline or a little later.

    ring: called with the time; it gives up whoever's deadline has passed, and returns the earliest of the others, `inf`
          if there is none. Must not park.

    at: when it will ring, on the monotonic clock; `inf` is never.
    """

    __slots__ = ("_hub", "_ring", "_timer", "at")

    def __init__(self, hub: Hub, ring: Callable[[float], float]) -> None:
        self._hub = hub
        self._ring = ring
        self._timer: Any = None
        self.at = inf

    def set(self, deadline: float) -> None:
        """Ring at `deadline`; it is earlier than `at`."""
        self.stop()
        self.at = deadline
        # libuv has millisecond timers and warns below them.
        self._timer = self._hub.loop.timer(max(deadline - monotonic(), 0.001))
        # From now on, and not from when this turn of the loop began.
        self._timer.start(self._rang, update=True)

    def stop(self) -> None:
        """Do not ring."""
        self.at = inf
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()

    def _rang(self) -> None:
        self.stop()
        earliest = self._ring(monotonic())
        if earliest < self.at:
            self.set(earliest)
