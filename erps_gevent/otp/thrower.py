"""An exit on its way into a greenlet, thrown again until somebody says that it has arrived.

gevent's own kill is thrown once, and an `except BaseException` in user code swallows it.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
from gevent.hub import Hub

from erps_gevent.errors import Exit

logger = logging.getLogger("erps_gevent")

RETHROW = 0.5  # seconds. Time enough for a `finally:` that tidies up; a swallowed exit is thrown again after it.


class Thrower:
    """Throws `Exit(reason)` into `greenlet` until it is stopped; `who` it is for the log."""

    __slots__ = ("greenlet", "hub", "next", "reason", "throws", "who")

    def __init__(self, hub: Hub, greenlet: gevent.Greenlet[..., Any], who: object, reason: Any) -> None:
        self.hub = hub
        self.greenlet = greenlet
        self.who = who
        self.reason = reason
        self.throws = 0
        self.next: Any = None  # the callback or timer of the next throw

    def throw_soon(self) -> None:
        """In this turn of the loop."""
        self.next = self.hub.loop.run_callback(self._throw)

    def throw_later(self) -> None:
        """After RETHROW seconds, because it has been thrown now."""
        self.stop()
        self.throws += 1
        self.next = self.hub.loop.timer(RETHROW)
        self.next.start(self._throw)

    def stop(self) -> None:
        """It has arrived. Idempotent."""
        if self.next is not None:
            self.next.close()
            self.next = None

    def _throw(self) -> None:
        if self.throws:
            gevent.spawn(logger.warning, "%r swallowed its exit %r; thrown again", self.who, self.reason)
        self.throw_later()
        self.greenlet.throw(Exit(self.reason))
