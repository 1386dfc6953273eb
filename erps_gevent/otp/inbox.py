"""Where a process takes its next event from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Hub, Waiter, get_hub

from erps_gevent.otp.waiting import answer

TURN_EVENTS = 64  # events that a busy process takes before the other greenlets have a turn
TURN_SECONDS = 0.005


class Inbox:
    """Where a process takes its next event from: its mailbox, in the order of arrival.

    A process that listens to more than its mailbox (a socket) brings an inbox of its own; `put`, `next` and `wake` are
    all that anybody else may use. `None` is no message.
    """

    __slots__ = ("hub", "mailbox", "parked", "served", "turn_ends")

    def __init__(self) -> None:
        self.hub: Hub = get_hub()
        self.mailbox: deque[Any] = deque()
        self.parked: Waiter[Any] | None = None
        self.begin_turn()

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
        self.take_turn()
        while not self.mailbox:
            if not self.park(deadline):
                return None
        return self.mailbox.popleft()

    def select(self, match: Callable[[Any], bool] | None, deadline: float | None = None) -> Any:
        """Return the first message that matches, and leave the others where they are; None as for `next`. Parks.

        match: must not park. It sees each message once. None takes any.
        """
        self.take_turn()
        if match is None and self.mailbox:
            return self.mailbox.popleft()
        seen = 0
        while True:
            # Nobody else removes messages, so what was seen stays where it is. One may come while we look, of `match`
            # itself, or of a __del__ at any time.
            for message in list(islice(self.mailbox, seen, None)):
                if match is None or match(message):
                    del self.mailbox[seen]
                    return message
                seen += 1
            if seen < len(self.mailbox):
                self.take_turn()
                continue
            # Not `self.park`: an inbox that listens to a socket too would be woken for that again and again.
            if not Inbox.park(self, deadline):
                return None

    def take_turn(self) -> float:
        """Count one event; parks for a turn of the loop when this process has had the hub for long enough.

        return: the time after that, on the monotonic clock.
        """
        now = monotonic()
        self.served += 1
        if self.served == 2:
            # The event before this one was waited for. Here the time of a turn begins, which saves a look at the clock.
            self.turn_ends = now + TURN_SECONDS
        elif self.served > TURN_EVENTS or now > self.turn_ends:
            self._yield()
            return monotonic()
        return now

    def _yield(self) -> None:
        gevent.sleep(0)
        self.begin_turn()

    def begin_turn(self) -> None:
        """What this process has had of the hub until now counts no more."""
        # With the event that is being fetched.
        self.served = 1
        self.turn_ends = monotonic() + TURN_SECONDS

    def park(self, deadline: float | None) -> bool:
        """Park until something wakes this inbox; False when the deadline has passed."""
        seconds = None
        if deadline is not None:
            seconds = deadline - monotonic()
            if seconds <= 0:
                return False
        waiter: Waiter[Any] = Waiter(self.hub)
        self.parked = waiter
        try:
            if seconds is None:
                waiter.get()
            else:
                answer(waiter, seconds)
        finally:
            self.parked = None
        self.served = 1
        return deadline is None or bool(self.mailbox) or monotonic() < deadline

    def retire(self) -> None:
        """In a forked child, to which the process does not belong: nothing wakes its greenlet any more.

        Whoever calls this keeps the greenlet for ever: taking it apart would raise GreenletExit in it.
        """
        self.mailbox.clear()
        if self.parked is not None:
            self.parked.clear()

    def close(self) -> None:
        """Drop what is queued; the process is dead."""
        self.mailbox.clear()
