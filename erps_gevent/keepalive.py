"""The keepalive of a client's line: what silence is answered with, and how long it may last.

nothing heard for `interval` ──▶ a keepalive ──▶ something is heard: it begins anew
                                           └──▶ nothing within `dead_after`: the reader looks once more,
                                                and gives the line up
"""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import Any, Protocol

from gevent.hub import Hub

from erps_gevent.errors import Disconnected
from erps_gevent.outbox import Outbox
from erps_gevent.wire.session import ClientSession, State


class Line(Protocol):
    """What it has to know of a ClientConnection, and what it asks of it."""

    hub: Hub
    heard: float
    cause: Exception | None
    pending: dict[int, Any]
    session: ClientSession

    @property
    def outbox(self) -> Outbox: ...
    def pull(self) -> bool: ...
    def wake(self) -> None: ...
    def lose(self, error: Exception) -> None: ...


class Keepalive:
    """The clock of one line. Nothing here parks.

    asked:  when a keepalive was sent that may be unanswered; None once the line was heard of within the interval.
    silent: set when the reader is to look once more, and to give the line up for this reason if there is nothing.
    """

    __slots__ = ("asked", "clock", "line", "silent")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.asked: float | None = None
        self.silent: Disconnected | None = None
        self.clock: Any = None

    def start(self, interval: float, dead_after: float | None) -> None:
        """Say something after `interval` seconds of silence; give the line up after `dead_after` without an echo.

        A line that has calls pending is left alone: the server may be busy, and the kernel's keepalive watches it too.
        """
        self.stop()
        line = self.line
        if line.cause is not None:
            return
        now = monotonic()
        silence = now - line.heard
        if silence < interval:
            self.asked = None
        elif self.asked is None or self.asked <= line.heard:
            self.asked = now
            self._say()
        elif dead_after and not line.pending and now - self.asked >= max(dead_after - interval, interval / 2):
            text = f"the server has been silent for {silence:.0f} s and did not answer a keepalive"
            # It may be this process that was stopped, and the echo is there: the reader knows.
            self.silent = Disconnected(text, reason="timeout", sent=True)
            line.wake()
        self._again(interval - silence if silence < interval else interval / 2, interval, dead_after)

    def stop(self) -> None:
        clock, self.clock = self.clock, None
        if clock is not None:
            clock.close()

    def look_again(self, why: Disconnected) -> None:
        """By the reader: read what is there, and if that is nothing, lose the line."""
        self.silent = None
        self.line.pull()
        if self.asked is not None and self.line.heard < self.asked:
            self.line.lose(why)

    def _again(self, seconds: float, interval: float, dead_after: float | None) -> None:
        # libuv has millisecond timers and warns below them.
        self.clock = self.line.hub.loop.timer(max(seconds, 0.001))
        self.clock.start(self.start, interval, dead_after)

    def _say(self) -> None:
        session = self.line.session
        if session.state is State.OPEN:
            with contextlib.suppress(Disconnected):
                self.line.outbox.write(session.keepalive())
