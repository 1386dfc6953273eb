"""Connections that tell an observer of each call: what access logs and hooks per call are made of.

Another class, not a question asked at every call: who observes nothing pays nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from time import monotonic
from typing import Any, Protocol

from erps_gevent.errors import EncodeError, ErpsError, ErrorReply
from erps_gevent.otp.messages import Call
from erps_gevent.server_connection import RemoteFrom, ServerConnection
from erps_gevent.transport.address import Peer
from erps_gevent.wire.packet import Type
from erps_gevent.wire.session import Packet


@dataclass(slots=True)
class ObservedCall:
    """One call that a server has begun to work on.

    began:   on the monotonic clock.
    outcome: None while it is under way, then "reply", "error:" and the kind of an ErrorReply, "exit:" and the name of
             another error, "dropped" as soon as it is known that nobody waits for the answer any more, or "ended" if
             the server process or the line ended before there was one.
    seconds: from `began` to the outcome.
    """

    peer: Peer
    request: Any
    began: float = field(default_factory=monotonic)
    outcome: str | None = None
    seconds: float = 0.0


class Observer(Protocol):
    """What is told of calls, in the greenlet that works on them. It must neither raise nor take long."""

    def began(self, call: ObservedCall) -> None:
        """A server begins to work on it."""

    def ended(self, call: ObservedCall) -> None:
        """It has its outcome; mostly not in the greenlet in which it began, if its answer was deferred."""


class _Observing(ServerConnection):
    """observer: who is told. running: the calls that have begun and have no outcome."""

    __slots__ = ()
    observer: Observer
    running: dict[int, ObservedCall]

    def next(self, deadline: float | None = None) -> Any:
        event = super().next(deadline)
        if type(event) is Call and isinstance(event.from_, RemoteFrom):
            # Erps 0.7 may use a reference again.
            self._tell(event.from_.ref, "dropped")
            call = self.running[event.from_.ref] = ObservedCall(self.stream.peer, event.request)
            self.observer.began(call)
        return event

    def take(self, packet: Packet) -> None:
        super().take(packet)
        if packet.type is Type.CANCEL and packet.ref is not None:
            self._tell(packet.ref, "dropped")

    def answer(self, ref: int, value: Any) -> None:
        wanted = ref in self.calls and self.cause is None
        try:
            super().answer(ref, value)
        except EncodeError:
            self._tell(ref, "exit:EncodeError")
            raise
        self._tell(ref, "reply" if wanted else "dropped")

    def refuse(self, ref: int, error: ErpsError) -> None:
        wanted = ref in self.calls and self.cause is None
        try:
            super().refuse(ref, error)
        finally:
            said = f"error:{error.kind}" if isinstance(error, ErrorReply) else f"exit:{type(error).__name__}"
            self._tell(ref, said if wanted else "dropped")

    def drop(self) -> None:
        super().drop()
        for ref in list(self.running):
            self._tell(ref, "ended")

    def _tell(self, ref: int, outcome: str) -> None:
        call = self.running.pop(ref, None)
        if call is not None:
            call.outcome = outcome
            call.seconds = monotonic() - call.began
            self.observer.ended(call)


def observed(make: Any, observer: Observer, *args: Any, **kwargs: Any) -> ServerConnection:
    """What the connection class `make` of a dialect makes of the arguments, with an observer."""
    connection = _observing(make)(*args, **kwargs)
    connection.observer = observer
    connection.running = {}
    return connection


@cache
def _observing(kind: type[ServerConnection]) -> type[_Observing]:
    return type(f"Observing{kind.__name__}", (_Observing, kind), {"__slots__": ("observer", "running")})
