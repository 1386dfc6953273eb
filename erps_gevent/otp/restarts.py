"""How often, and how soon, a child may be started again. Pure: the time, on the monotonic clock, is passed in."""

from __future__ import annotations

from collections import deque


class Restarts:
    """The restarts of a supervisor's last `max_seconds`, which may be `max_restarts`."""

    __slots__ = ("max_restarts", "max_seconds", "times")

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self.times: deque[float] = deque()

    def add(self, now: float) -> bool:
        """Count a restart; False if it is one too many. source: supervisor:add_restart"""
        self.times.append(now)
        while self.times[0] + self.max_seconds < now:
            self.times.popleft()
        return len(self.times) <= self.max_restarts


class Backoff:
    """The pauses before the restarts of one child: from `first` doubling to `longest` seconds.

    They begin anew when the child has lived longer than `longest`.
    """

    __slots__ = ("first", "longest", "pause", "since")

    def __init__(self, first: float, longest: float) -> None:
        self.first = first
        self.longest = longest
        self.pause = 0.0
        self.since = 0.0

    def started(self, now: float) -> None:
        self.since = now

    def ended(self, now: float) -> None:
        if now - self.since > self.longest:
            self.pause = 0.0

    def next(self) -> float:
        """The seconds to wait before the next start."""
        self.pause = min(self.longest, self.pause * 2) if self.pause else self.first
        return self.pause
