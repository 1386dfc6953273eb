"""Keeps one line to one address up, for as long as somebody wants it.

One greenlet dials, reads the line, and heals it; while the line is down it is the one that waits. A goaway hands over:
a second greenlet dials anew, and the first reads the old line until its last reply is in. The states are in `moves.py`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Hub, Waiter, get_hub

from erps_gevent.backoff import QUICK_FOR, Backoff, lasts
from erps_gevent.client_connection import ClientConnection
from erps_gevent.errors import CallTimeout, Disconnected, ErpsError
from erps_gevent.integrations.forks import FORKED_TEXT
from erps_gevent.moves import MOVES, Event, State
from erps_gevent.otp.bridge import FORKED
from erps_gevent.outbox import HIGH_WATER

__all__ = ["Healer", "State"]

logger = logging.getLogger("erps_gevent")

MOVE_FOR = 1.0  # seconds. A move may meet a listener that is gone already and a new one that is not there yet.


class Healer:
    """The state of one client's line, and the greenlet that keeps it up.

    dial:         makes a connection that has been welcomed, or raises; parks.
    connected:    called with each new connection. Must not park.
    disconnected: called with the cause, once per lost line and once per new cause of failed attempts. Must not park.
    reconnect:    seconds, the cap of the back-off.
    heal:         False gives up, for good, when the line is lost or cannot be made.
    """

    def __init__(
        self,
        name: str,
        dial: Callable[[Healer], ClientConnection],
        connected: Callable[[ClientConnection], None],
        disconnected: Callable[[Exception], None],
        *,
        reconnect: float,
        heal: bool,
    ) -> None:
        self.hub: Hub = get_hub()
        self.name = name
        self.state = State.IDLE
        self.line: ClientConnection | None = None
        self.cause: Exception | None = None
        self.counts = {"connects": 0, "failed_attempts": 0, "lost": 0, "moves": 0}
        self._dial = dial
        self._connected = connected
        self._disconnected = disconnected
        self._backoff = Backoff(reconnect)
        self._heal = heal
        self._useless = 0  # lines in a row that ended before they were of use
        self._moving_until = 0.0
        self._told: tuple[type, Any] | None = None
        self._waiting: dict[Waiter[Any], bool] = {}
        self._pause: Waiter[Any] | None = None
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._running: set[gevent.Greenlet[..., None]] = set()
        self._leaving: set[ClientConnection] = set()

    # What callers ask for.

    def usable(self, deadline: float | None, wait: bool) -> ClientConnection:
        """A line that is up and has room. No switch lies between its return and what the caller writes.

        wait:   True waits through back-offs too.
        raises: Disconnected(sent=False)  it is down; the cause is chained.
                CallTimeout(sent=False)   neither up nor down by the deadline, or no room.
        switch: parks unless the line is up.
        """
        while True:
            line = self.line
            if line is None or line.cause is not None or line.doubt is not None or self.state is not State.UP:
                self._wait_for_line(deadline, wait)
            elif line.outbox.size > HIGH_WATER:
                with contextlib.suppress(Disconnected):
                    line.outbox.wait_for_room(deadline)
            else:
                return line

    def open(self) -> None:
        """See that somebody is dialling; during a back-off, now. raises: Disconnected  it is closed."""
        if self.state is State.CLOSED:
            raise self.down()
        starting = self.state in (State.IDLE, State.DOWN)
        self._move(Event.OPEN)
        if starting:
            self._start()
        elif self._pause is not None:
            pause, self._pause = self._pause, None
            self.hub.loop.run_callback(pause.switch, None)

    def disconnect(self) -> None:
        """Down until open()."""
        self._leave(Event.DISCONNECT, Disconnected("disconnected: connect() ends this", reason="disconnected"))

    def close(self, why: str = "closed") -> None:
        """Down for good."""
        self._leave(Event.CLOSE, Disconnected(why, reason="closed"))

    def join(self, timeout: float) -> None:
        """Wait until the lines that were left have said their bye. Parks."""
        gevent.joinall([greenlet for greenlet in self._running if greenlet is not gevent.getcurrent()], timeout=timeout)

    def down(self) -> Disconnected:
        """The error for whoever wants the line while it is down."""
        cause = self.cause
        if self.state in (State.DOWN, State.CLOSED) and isinstance(cause, Disconnected):
            error = Disconnected(str(cause), reason="disconnected")
            error.__cause__ = cause.__cause__ or cause
        else:
            error = Disconnected(f"no line to {self.name}: {cause}", reason="disconnected")
            error.__cause__ = cause
        return error

    def _wait_for_line(self, deadline: float | None, wait: bool) -> None:
        if self.state in (State.DOWN, State.CLOSED) or (self.state is State.BACKOFF and not wait):
            raise self.down()
        if deadline is not None and monotonic() >= deadline:
            error = CallTimeout(f"no line to {self.name} in time; it is {self.state.name.lower()}", reason="timeout")
            error.__cause__ = self.cause
            raise error
        waiter: Waiter[Any] = Waiter(self.hub)
        self._waiting[waiter] = wait
        timer = None
        if deadline is not None:
            # libuv has millisecond timers and warns below them.
            timer = self.hub.loop.timer(max(deadline - monotonic(), 0.001))
            timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            self._waiting.pop(waiter, None)
            if timer is not None:
                timer.close()

    def _release(self, *, all_: bool = True) -> None:
        """Let waiters look again, and those fail for whom the line is down. Without `all_`, only those."""
        for waiter, patient in list(self._waiting.items()):
            if all_ or not patient:
                del self._waiting[waiter]
                if self.state in (State.BACKOFF, State.DOWN, State.CLOSED):
                    self.hub.loop.run_callback(waiter.throw, self.down())
                else:
                    self.hub.loop.run_callback(waiter.switch, None)

    def after_fork(self) -> None:
        """In a forked child: this copy keeps nothing up any more, and whoever waits for its line is told."""
        self._move(Event.CLOSE)
        self.cause = Disconnected(FORKED_TEXT, reason=FORKED)
        greenlet, self._greenlet = self._greenlet, None
        reading, self.line = self.line is not None, None
        if greenlet is not None and not reading and greenlet is not gevent.getcurrent():
            greenlet.kill(block=False)
        self._release()

    # The state, and who runs.

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state][event]

    def _leave(self, event: Event, why: Disconnected) -> None:
        before = self.state
        self._move(event)
        if self.state is before:
            return
        self.cause = why
        greenlet, self._greenlet = self._greenlet, None
        line, self.line = self.line, None
        if line is not None:
            line.leave_now(why)
        elif greenlet is not None and greenlet is not gevent.getcurrent():
            # It dials, or waits for its next attempt.
            greenlet.kill(block=False)
        for old in list(self._leaving):
            old.leave_now(why)
        self._release()

    def _start(self, *, pause: bool = False) -> None:
        greenlet = gevent.Greenlet(self._run, pause)
        self._greenlet = greenlet
        self._running.add(greenlet)
        greenlet.rawlink(self._running.discard)
        greenlet.start()

    def _is_mine(self) -> bool:
        """True if the running greenlet is still the one that keeps the line up."""
        return self._greenlet is gevent.getcurrent()

    def _run(self, pause: bool) -> None:
        """Dial, read, heal, until told otherwise or until a successor has taken over."""
        if pause:
            self._back_off(Disconnected("the server asked to be left before the line was of use"))
        while self._is_mine():
            line = self._connect()
            if line is not None:
                self._read(line)

    def _connect(self) -> ClientConnection | None:
        try:
            line = self._dialled()
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever for its outcome
            if self._is_mine():
                self._failed(error)
            return None
        if not self._is_mine():
            # disconnect() came in the same turn as the welcome.
            line.drop()
            return None
        # atomic: no switch from here to line.serve(), which sees first what came with the welcome: perhaps a goaway.
        self.line = line
        self.cause = None
        self._told = None
        self.counts["connects"] += 1
        self._move(Event.READY)
        self._connected(line)
        self._release()
        return line

    def _dialled(self) -> ClientConnection:
        line = self._dial(self)
        try:
            # A handler of the log may park.
            logger.info("%s: connected", self.name)
        except BaseException:
            line.drop()
            raise
        return line

    def _read(self, line: ClientConnection) -> None:
        lost = False
        try:
            cause = line.serve()
        finally:
            if self.line is line:
                self.line = None
                lost = True
            self._leaving.discard(line)
            line.finish()
        if lost and self._is_mine():
            self._lost(line, cause)

    # What happens to the line.

    def moving(self, line: ClientConnection) -> None:
        """The server asks to be left: a successor dials, and `line` takes its last replies."""
        if line is not self.line:
            return
        self.counts["moves"] += 1
        self.line = None
        self._moving_until = monotonic() + MOVE_FOR
        self._move(Event.GOAWAY)
        self._leaving.add(line)
        line.leave()
        self._start(pause=self._was_useless(line))
        logger.info("%s: the server says goaway; moving", self.name)

    def _lost(self, line: ClientConnection, cause: Exception) -> None:
        self.counts["lost"] += 1
        if not self._heal:
            self._give_up(cause)
            return
        self.cause = cause
        again = self._was_useless(line)
        self._move(Event.PAUSE if again else Event.LOST)
        if again:
            self._release(all_=False)
        self._tell(cause, lost=True)
        if again:
            self._back_off(cause)

    def _failed(self, error: Exception) -> None:
        self.counts["failed_attempts"] += 1
        if self.state is State.MOVING and monotonic() < self._moving_until and not lasts(error):
            self._back_off(error)
            return
        if not self._heal:
            self._give_up(error)
            return
        self.cause = error
        self._move(Event.FAILED)
        self._release(all_=False)
        self._tell(error)
        self._back_off(error)

    def _give_up(self, cause: Exception) -> None:
        why = Disconnected(f"closed, because heal=False: {cause}", reason="closed")
        why.__cause__ = cause
        self._leave(Event.CLOSE, why)
        self._tell(cause, lost=True)

    def _was_useless(self, line: ClientConnection) -> bool:
        """True if this line and the one before it ended before they were of use: then the next one has to wait."""
        if line.answered or monotonic() - line.since > QUICK_FOR:
            self._backoff.reset()
            self._useless = 0
        self._useless += 1
        return self._useless > 1

    def _tell(self, cause: Exception, *, lost: bool = False) -> None:
        """Log and report a cause, unless it is the one before it again."""
        news = (type(cause), getattr(cause, "reason", None) or str(cause))
        if lost or news != self._told:
            self._told = news
            self._disconnected(cause)
            logger.warning("%s: %s", self.name, cause, exc_info=None if isinstance(cause, ErpsError) else cause)

    def _back_off(self, error: Exception) -> None:
        # open() or disconnect() may have come while the cause was told.
        if not self._is_mine() or self.state not in (State.BACKOFF, State.MOVING):
            return
        waiter: Waiter[Any] = Waiter(self.hub)
        self._pause = waiter
        timer = self.hub.loop.timer(max(self._backoff.delay(error), 0.001))
        timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            if self._pause is waiter:
                self._pause = None
            timer.close()
        if self._is_mine() and self.state is State.BACKOFF:
            self._move(Event.TICK)
