"""Keeps one line to one address up, for as long as somebody wants it.

One greenlet dials, reads the line, and heals it; while the line is down it is the one that waits. A goaway hands over:
a second greenlet dials anew, and the first reads the old line until its last reply is in.

    IDLE ──OPEN──▶ CONNECTING ──READY──▶ UP ──LOST──▶ CONNECTING      at once, the first time
                    │      ▲              │
                  FAILED  TICK            └──GOAWAY──▶ MOVING ──READY──▶ UP
                    ▼      │                             └──FAILED──▶ BACKOFF
                    BACKOFF

disconnect() leads to DOWN from anywhere, and connect() out of it; close() leads to CLOSED, which is final.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Hub, Waiter, get_hub

from erps_gevent.connection import ClientConnection
from erps_gevent.errors import CallTimeout, Disconnected, ErpsError, Overloaded, ProtocolError
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.transport.reasons import LASTING

logger = logging.getLogger("erps_gevent")

FIRST_CEILING = 0.05  # seconds. Doubled with each attempt ...
QUICK_CEILING = 0.8  # ... up to this for the first QUICK_FOR seconds, so that a restart is over within a second,
QUICK_FOR = 30.0
MOVE_ATTEMPTS = 2  # a move may meet the old listener on its last legs, so its first failure fails nobody


class State(Enum):
    IDLE = auto()
    CONNECTING = auto()
    UP = auto()
    MOVING = auto()
    BACKOFF = auto()
    DOWN = auto()
    CLOSED = auto()


class Event(Enum):
    OPEN = auto()
    READY = auto()
    FAILED = auto()
    LOST = auto()
    PAUSE = auto()
    GOAWAY = auto()
    TICK = auto()
    DISCONNECT = auto()
    CLOSE = auto()


_OUT = {Event.DISCONNECT: State.DOWN, Event.CLOSE: State.CLOSED}

MOVES: dict[State, dict[Event, State]] = {
    State.IDLE: {Event.OPEN: State.CONNECTING, **_OUT},
    State.CONNECTING: {Event.READY: State.UP, Event.FAILED: State.BACKOFF, Event.OPEN: State.CONNECTING, **_OUT},
    State.UP: {
        Event.LOST: State.CONNECTING,
        Event.PAUSE: State.BACKOFF,
        Event.GOAWAY: State.MOVING,
        Event.OPEN: State.UP,
        **_OUT,
    },
    State.MOVING: {Event.READY: State.UP, Event.FAILED: State.BACKOFF, Event.OPEN: State.MOVING, **_OUT},
    State.BACKOFF: {Event.TICK: State.CONNECTING, Event.OPEN: State.CONNECTING, **_OUT},
    State.DOWN: {Event.OPEN: State.CONNECTING, **_OUT},
    State.CLOSED: {Event.CLOSE: State.CLOSED, Event.DISCONNECT: State.CLOSED},
}


class Healer:
    """The state of one client's line, and the greenlet that keeps it up.

    dial:         makes a connection that has been welcomed, or raises; parks.
    connected:    called with each new connection. Must not park.
    disconnected: called with the cause, once per lost line and once per new cause of failed attempts. Must not park.
    reconnect:    seconds, the cap of the back-off.
    heal:         False gives up, for good, when the line is lost.
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
        self._reconnect = reconnect
        self._heal = heal
        self._attempt = 0
        self._down_since: float | None = None
        self._told: tuple[type, str] | None = None
        self._patient: dict[Waiter[Any], bool] = {}
        self._pause: Waiter[Any] | None = None
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._running: set[gevent.Greenlet[..., None]] = set()
        self._leaving: set[ClientConnection] = set()

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state][event]

    def usable(self, deadline: float | None, wait: bool) -> ClientConnection:
        """A line that is up and has room. No switch lies between its return and what the caller writes.

        wait:   True waits through back-offs too.
        raises: Disconnected(sent=False)  it is down; the cause is chained.
                CallTimeout(sent=False)   neither up nor down by the deadline, or no room.
        switch: parks unless the line is up.
        """
        while True:
            line = self.line
            if line is None or line.cause is not None or self.state is not State.UP:
                self._wait_for_line(deadline, wait)
            elif line.outbox.size > HIGH_WATER:
                line.outbox.wait_for_room(deadline)
            else:
                return line

    def open(self) -> None:
        """See that somebody is dialling; during a back-off, now."""
        if self.state is State.CLOSED:
            raise self.down()
        starting = self.state in (State.IDLE, State.DOWN)
        self._move(Event.OPEN)
        if starting:
            self._start()
        elif self._pause is not None:
            self._end_pause()

    def disconnect(self) -> None:
        """Down until open()."""
        self._leave(Event.DISCONNECT, Disconnected("disconnected: connect() ends this", reason="disconnected"))

    def close(self, why: str = "closed") -> None:
        """Down for good."""
        self._leave(Event.CLOSE, Disconnected(why, reason="closed"))

    def down(self) -> Disconnected:
        """The error for whoever wants the line while it is down."""
        cause = self.cause
        if self.state in (State.DOWN, State.CLOSED) and isinstance(cause, Disconnected):
            text = str(cause)
        else:
            text = f"no line to {self.name}: {cause}" if cause else f"no line to {self.name}"
        error = Disconnected(text, reason="disconnected")
        error.__cause__ = cause
        return error

    def _wait_for_line(self, deadline: float | None, wait: bool) -> None:
        line = self.line
        if self.state in (State.DOWN, State.CLOSED) or (self.state is State.BACKOFF and not wait):
            raise self.down()
        waiter: Waiter[Any] = Waiter(self.hub)
        self._patient[waiter] = wait
        timer = None
        if deadline is not None:
            # libuv has millisecond timers and warns below them.
            timer = self.hub.loop.timer(max(deadline - monotonic(), 0.001))
            timer.start(waiter.switch, _LATE)
        try:
            late = waiter.get()
        finally:
            self._patient.pop(waiter, None)
            if timer is not None:
                timer.close()
        if late is _LATE and (self.line is line or self.line is None):
            error = CallTimeout(f"no line to {self.name} in time; it is {self.state.name.lower()}", reason="timeout")
            error.__cause__ = self.cause
            raise error

    def _release(self, error: Exception | None = None, *, all_: bool = True) -> None:
        """Let waiters go on: to the new line, or with an error. Those with wait=True stay unless `all_`."""
        for waiter, patient in list(self._patient.items()):
            if error is not None and patient and not all_:
                continue
            del self._patient[waiter]
            if error is None:
                self.hub.loop.run_callback(waiter.switch, None)
            else:
                self.hub.loop.run_callback(waiter.throw, self.down())

    def join(self, timeout: float) -> None:
        """Wait until the lines that were left have said their bye. Parks."""
        gevent.joinall(list(self._running), timeout=timeout)

    def _leave(self, event: Event, why: Disconnected) -> None:
        self._move(event)
        self.cause = why
        greenlet, self._greenlet = self._greenlet, None
        line, self.line = self.line, None
        if line is not None:
            line.leave_now(why)
        elif greenlet is not None:
            greenlet.kill(block=False)
        for old in list(self._leaving):
            old.leave_now(why)
        self._release(why)

    def _start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._running.add(self._greenlet)
        self._greenlet.rawlink(self._running.discard)

    def _run(self) -> None:
        """Dial, read, heal, until told otherwise or until a successor has taken over."""
        me = gevent.getcurrent()
        while self._greenlet is me:
            line = self._connect()
            if line is not None:
                self._read(line)

    def _read(self, line: ClientConnection) -> None:
        cause = line.serve()
        lost = self.line is line
        if lost:
            self.line = None
        self._leaving.discard(line)
        line.finish()
        if lost and self._greenlet is gevent.getcurrent():
            self._lost(line, cause)

    def _connect(self) -> ClientConnection | None:
        try:
            line = self._dial(self)
        except ErpsError as error:
            self._failed(error)
            return None
        self.line = line
        self.cause = None
        self._told = None
        self.counts["connects"] += 1
        self._move(Event.READY)
        logger.info("%s: connected", self.name)
        self._connected(line)
        self._release()
        return line

    def moving(self, line: ClientConnection) -> None:
        """The server asks to be left: a successor dials, and `line` takes its last replies."""
        if line is not self.line:
            return
        self.counts["moves"] += 1
        self.line = None
        self._attempt = 0
        self._move(Event.GOAWAY)
        self._leaving.add(line)
        logger.info("%s: the server says goaway; moving", self.name)
        self._start()
        line.leave()

    def _lost(self, line: ClientConnection, cause: Exception) -> None:
        self.cause = cause
        self.counts["lost"] += 1
        if line.answered or monotonic() - line.since > QUICK_FOR:
            self._attempt = 0
            self._down_since = monotonic()
        self._attempt += 1
        self._tell(cause)
        if not self._heal:
            self.close()
        elif self._attempt == 1:
            self._move(Event.LOST)
        else:
            self._move(Event.PAUSE)
            self._release(cause, all_=False)
            self._back_off(cause)

    def _failed(self, error: ErpsError) -> None:
        self._attempt += 1
        self.counts["failed_attempts"] += 1
        if self.state is State.MOVING and self._attempt < MOVE_ATTEMPTS and not _lasts(error):
            return
        self.cause = error
        self._tell(error)
        if not self._heal:
            self.close()
            return
        self._move(Event.FAILED)
        self._release(error, all_=False)
        self._back_off(error)

    def _tell(self, cause: Exception) -> None:
        """Log and report a cause, unless it is the one before it again."""
        news = (type(cause), getattr(cause, "reason", None) or str(cause))
        if self.state is State.UP or news != self._told:
            self._told = news
            logger.warning("%s: %s", self.name, cause)
            self._disconnected(cause)

    def _back_off(self, error: Exception) -> None:
        waiter: Waiter[Any] = Waiter(self.hub)
        self._pause = waiter
        timer = self.hub.loop.timer(max(self._delay(error), 0.001))
        timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            self._pause = None
            timer.close()
        if self.state is State.BACKOFF:
            self._move(Event.TICK)

    def _end_pause(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            self.hub.loop.run_callback(pause.switch, None)

    def _delay(self, error: Exception) -> float:
        """Seconds until the next attempt, at random under a ceiling, so that a thousand clients do not come at once."""
        if _lasts(error):
            return random.uniform(0.5, 1.0) * self._reconnect
        if self._down_since is None:
            self._down_since = monotonic()
        quick = monotonic() - self._down_since < QUICK_FOR
        top = min(QUICK_CEILING, self._reconnect) if quick else self._reconnect
        # 2**16 * 0.05 is above any ceiling that is of use.
        delay = random.uniform(0, min(top, FIRST_CEILING * 2.0 ** min(self._attempt, 16)))
        if isinstance(error, Overloaded) and error.retry_after is not None:
            delay += error.retry_after
        return delay


def _lasts(error: Exception) -> bool:
    """True for what stays wrong until somebody changes a file or an option."""
    return isinstance(error, ProtocolError) or getattr(error, "reason", None) in LASTING


_LATE = object()
