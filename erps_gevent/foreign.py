"""Calls and casts from native threads other than the client's, for the price of waking each of the two threads once.

    calling thread    run_job ──▶ posts `begin` into the hub ──▶ waits for its lock ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┐
    the hub           begin ──▶ line.ask ──▶ pending[ref] … the reader takes the reply ──▶ switch ──▶ wake

Nothing is spawned for it, so it is a hub callback that encodes and writes, and none of that parks. What may have to
wait for something else, such as a line that is being made, is run in a greenlet as any other job.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from erps_gevent.client_connection import ClientConnection
from erps_gevent.errors import CallTimeout
from erps_gevent.healing import Healer, State
from erps_gevent.otp.bridge import Job
from erps_gevent.outbox import HIGH_WATER, Entry


class ForeignCast(Job[None]):
    """A cast on its way into the client's hub.

    healer:  the client's; None if it has not begun yet.
    function, args: what does the same in a greenlet; the request and the timeout are the first of `args`.
    """

    def __init__(self, healer: Healer | None, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(function, args)
        self.healer = healer
        self.request, self.timeout = args[:2]
        self.deadline = None if self.timeout is None else monotonic() + self.timeout

    def start(self) -> None:
        line = self._line()
        if line is None:
            super().start()
            return
        try:
            if self.deadline is not None and self.deadline <= monotonic():
                text = f"the hub of the client has come to it too late, after {self.timeout} s"
                raise CallTimeout(text, reason="timeout")
            self.send(line)
        except Exception as error:  # noqa: BLE001  it is raised where the caller waits
            self.throw(error)

    def _line(self) -> ClientConnection | None:
        """The line, if it is up and has room."""
        healer = self.healer
        if healer is None or healer.state is not State.UP:
            return None
        line = healer.line
        if line is None or line.cause or line.doubt or line.outbox.size > HIGH_WATER:
            return None
        return line

    def send(self, line: ClientConnection) -> None:
        line.cast(self.request)
        self.switch(None)

    def switch(self, value: Any) -> None:
        """The outcome is `value`."""
        self.value = value
        self.done = True
        self.wake()

    def throw(self, error: Exception) -> None:
        """The outcome is that `error`."""
        self.error = error
        self.done = True
        self.wake()


class ForeignCall(ForeignCast):
    """A call on its way into the client's hub; the line takes it for one of its callers."""

    asked: tuple[ClientConnection, int, Entry | None] | None = None

    def send(self, line: ClientConnection) -> None:
        remaining = None if self.deadline is None else max(self.deadline - monotonic(), 0.0)
        self.asked = line, *line.ask(self, self.request, self.timeout, remaining)

    def abandon(self) -> None:
        super().abandon()
        if self.asked is not None:
            line, ref, entry = self.asked
            line.abandon(ref, entry)
