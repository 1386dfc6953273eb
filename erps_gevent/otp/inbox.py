"""Where a process takes its next event from."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from gevent.hub import Hub, Waiter, get_hub


class Inbox:
    """Where a process takes its next event from: its mailbox, in the order of arrival.

    A process that listens to more than its mailbox (a socket) brings an inbox of its own; `put`, `next` and `wake` are
    all that anybody else may use.
    """

    __slots__ = ("hub", "mailbox", "parked")

    def __init__(self) -> None:
        self.hub: Hub = get_hub()
        self.mailbox: deque[Any] = deque()
        self.parked: Waiter[Any] | None = None

    def put(self, message: Any) -> None:
        """Append a message. From this hub only; never parks."""
        self.mailbox.append(message)
        if self.parked is not None:
            self.wake()

    def wake(self) -> None:
        """Let a parked `next` look again, in this turn of the loop."""
        parked, self.parked = self.parked, None
        if parked is not None:
            self.hub.loop.run_callback(parked.switch, None)

    def next(self, deadline: float | None = None) -> Any:
        """Return the next message, or None when the deadline (on the monotonic clock) has passed. Parks."""
        while not self.mailbox:
            if not self.park(deadline):
                return None
        return self.mailbox.popleft()

    def park(self, deadline: float | None) -> bool:
        """Park until something wakes this inbox; False when the deadline has passed."""
        if deadline is None:
            waiter: Waiter[Any] = Waiter(self.hub)
            self.parked = waiter
            try:
                waiter.get()
            finally:
                self.parked = None
            return True
        seconds = deadline - monotonic()
        if seconds <= 0:
            return False
        # libuv has millisecond timers and warns below them.
        timer = self.hub.loop.timer(max(seconds, 0.001))
        self.parked = waiter = Waiter(self.hub)
        timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            self.parked = None
            timer.close()
        return bool(self.mailbox) or monotonic() < deadline

    def close(self) -> None:
        """Drop what is queued; the process is dead."""
        self.mailbox.clear()
