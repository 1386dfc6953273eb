"""The server's end of a line: the inbox of a server process, which merges its mailbox and its packets.

    the line ──▶ events ─┐
                         ├─ in turns ──▶ next() ──▶ one callback at a time
    the mailbox ─────────┘

At most TURN_EVENTS, or TURN_SECONDS, pass before the other greenlets have a turn. The line is read when there is
nothing else to do, once a turn if there always is, and from outside, by `look`, while a handler is parked. A peer that
does not read is not read either; the mailbox goes on.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from gevent import GreenletExit
from gevent.hub import Hub

from erps_gevent.connection import Connection
from erps_gevent.errors import CallExit, CallTimeout, Disconnected, EncodeError, ErpsError, ErrorReply, Overloaded
from erps_gevent.integrations import forks
from erps_gevent.otp import bridge
from erps_gevent.otp.inbox import TURN_SECONDS, Inbox
from erps_gevent.otp.messages import Call, Cast, Event, From, StopRequest
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.transport.tcp import Stream
from erps_gevent.wire.packet import Type
from erps_gevent.wire.payloads import CALL
from erps_gevent.wire.pieces import Pieces
from erps_gevent.wire.refusals import Code, Refusal, refusal_of
from erps_gevent.wire.session import Packet, ServerSession, State

LOOK_EVENTS = 256  # events that wait unserved, above which a parked server's line is not looked at
LOOK_SIZE = 1024 * 1024  # bytes read ahead of a parked server, likewise; what was deflated counts as what it became
ROOM_TIMEOUT = 5.0  # seconds that a push or a reply waits for room

DISCONNECTED = Shutdown("disconnected")


class RemoteFrom(From):
    """The reply address of a call that came over a line."""

    __slots__ = ("connection", "deferred", "ref")
    is_remote = True

    def __init__(self, connection: ServerConnection, ref: int, deadline: float | None) -> None:
        self.hub: Hub = connection.hub
        self.deadline = deadline
        self.done = False
        self.connection = connection
        self.ref = ref
        self.deferred = False

    def reply(self, value: Any) -> None:
        # As From.reply, in fewer steps: it is on the way of every call.
        if bridge.is_foreign(self.hub):
            super().reply(value)
        elif not self.done:
            self.done = True
            self.connection.answer(self.ref, value)

    def hold(self) -> None:
        self.deferred = True
        self.connection.deferred += 1

    def release(self) -> None:
        if self.deferred:
            self.deferred = False
            self.connection.deferred -= 1

    def __repr__(self) -> str:
        return f"<From {self.connection.stream.peer}>"

    def _reply(self, value: Any) -> None:
        self.connection.answer(self.ref, value)

    def _fail(self, error: CallExit | ErrorReply) -> None:
        self.connection.refuse(self.ref, error)


class ServerConnection(Connection[ServerSession]):
    """The server's end of a line.

    max_pending: count of calls that it may have unanswered.

    calls:    those that are unanswered, started or not.
    deferred: count of those that a greenlet of their own works on, also when nobody waits for them any more.
    events:   what has come and has not been served.

    exit_reason: what its process has ended with, until whoever waits for that has read it.
    """

    __slots__ = (
        *("ahead_from", "calls", "calls_served", "deferred", "events", "exit_reason", "forked", "line_first"),
        "max_pending",
    )

    def __init__(self, stream: Stream, session: ServerSession, send_timeout: float, max_pending: int) -> None:
        super().__init__(stream, session, send_timeout)
        self.outbox.sign = session.sign
        self.max_pending = max_pending
        self.calls: dict[int, RemoteFrom] = {}
        self.calls_served = 0
        self.deferred = 0
        self.events: deque[Event] = deque()
        self.line_first = True
        self.ahead_from = 0
        self.exit_reason: Any = None
        self.forked = False
        # Nothing may overtake the welcome, and init may push; if it fails, those pushes are not sent.
        self.outbox.corked = True

    # What the process asks of its inbox.

    def next(self, deadline: float | None = None) -> Any:
        """The next event: from the line and the mailbox in turns. None when the deadline has passed. Parks."""
        now = self.take_turn()
        while True:
            if self.mailbox and not self.line_first:
                self.line_first = True
                return self.mailbox.popleft()
            self.line_first = False
            while self.events:
                event = self.events.popleft()
                if event.__class__ is not Call:
                    return event
                from_: Any = event.from_
                if not from_.done and (from_.deadline is None or now < from_.deadline) and self.cause is None:
                    return event
                # The caller has given up before the call was started.
                from_.done = True
                self.calls.pop(from_.ref, None)
            if self.cause is not None:
                if self.forked:
                    # A handler that was at work when this process was forked has returned in the child: no terminate.
                    raise GreenletExit
                return StopRequest(DISCONNECTED)
            if not self.mailbox and not self._more_events(deadline):
                return None
            now = self.heard

    def _yield(self) -> None:
        super()._yield()
        if self.mailbox and not self.events and self.outbox.size <= HIGH_WATER and self.cause is None:
            self.pull()

    def _more_events(self, deadline: float | None) -> bool:
        if self.outbox.size <= HIGH_WATER:
            return self.more(deadline)
        # It does not read what it asked for, so it is not asked for more.
        self.outbox.tell(self.wake)
        return Inbox.park(self, deadline)

    def _let_go(self) -> None:
        self.retire()
        self.forked = True
        self.events.clear()
        super()._let_go()
        forks.bury(self)

    # What comes over the line.

    def take(self, packet: Packet) -> None:
        type_, ref, value, meta = packet
        if type_ is CALL:
            self._take_call(ref, value, meta)  # type: ignore[arg-type]
        elif type_ is Type.CAST:
            self.events.append(Cast(value))
        elif type_ is Type.CANCEL:
            cancelled = self.calls.pop(ref, None) if ref else None
            if cancelled is not None:
                cancelled.done = True
        elif type_ is Type.KEEPALIVE:
            # A peer that has this much to read is not waiting for an echo.
            if self.outbox.size <= HIGH_WATER:
                self._write(self.session.keepalive())
        elif type_ is Type.BYE:
            self.lose(Disconnected("the client said bye", reason="bye", sent=True))
        elif type_ is Type.HELLO and self.session.state is State.FRESH:
            # It is signed, and has to be answered before it is believed. This goes before the welcome.
            self.outbox.corked = False
            self._write(self.session.hello())
            self.outbox.corked = True

    def _take_call(self, ref: int, request: Any, meta: Any) -> None:
        # A caller that gives up does not end the work, so it makes no room for more of it.
        if len(self.calls) >= self.max_pending or self.deferred >= self.max_pending:
            text = f"{self.max_pending} calls of this line are pending; wait for replies, or raise max_pending"
            self._write(self.session.refusal(ref, refusal_of(Overloaded(text))))
            return
        remaining = meta.get("t") if meta else None
        deadline = self.heard + remaining if type(remaining) is float else None
        from_ = self.calls[ref] = RemoteFrom(self, ref, deadline)
        self.events.append(Call(request, from_))

    def ended(self) -> Exception:
        return self.session.eof() or Disconnected("the client closed the line", reason="closed", sent=True)

    def look(self) -> None:
        """Read, without parking and within bounds, while a handler is parked: keepalives, cancels, byes, the end."""
        until = monotonic() + TURN_SECONDS
        if not self.events:
            self.ahead_from = self._taken_in()
        while (
            self.cause is None
            and len(self.events) < LOOK_EVENTS
            and self._taken_in() - self.ahead_from < LOOK_SIZE
            and self.outbox.size <= HIGH_WATER
            and self.pull()
            and monotonic() < until
        ):
            continue

    def _taken_in(self) -> int:
        return self.session.received_bytes + self.session.inflated_bytes

    # What goes out.

    def answer(self, ref: int, value: Any) -> None:
        """Send the reply to the call `ref`, unless its caller has given up.

        raises: EncodeError  the value cannot be sent; the caller is told so.
        switch: parks while there is no room, for ROOM_TIMEOUT at the most; then the caller is told so.
        """
        if self.calls.pop(ref, None) is None or self.cause is not None:
            return
        self.calls_served += 1
        try:
            frame = self.session.reply(ref, value)
        except EncodeError as error:
            self._write(self.session.refusal(ref, Refusal(Code.EXIT, "EncodeError", str(error))))
            raise
        self._respond(ref, frame)

    def refuse(self, ref: int, error: ErpsError) -> None:
        """Answer the call `ref` with an error. raises, switch: as `answer`; it is its data that cannot be sent."""
        if self.calls.pop(ref, None) is None or self.cause is not None:
            return
        self.calls_served += 1
        try:
            frame = self.session.refusal(ref, refusal_of(error))
        except EncodeError as unsendable:
            self._write(self.session.refusal(ref, Refusal(Code.EXIT, "EncodeError", str(unsendable))))
            raise
        self._respond(ref, frame)

    def push(self, message: Any, timeout: float | None = ROOM_TIMEOUT) -> None:
        """Send `message` to the client; see Server.push."""
        self._check_line()
        if self.outbox.size > HIGH_WATER:
            self.outbox.wait_for_room(None if timeout is None else monotonic() + timeout)
            self._check_line()
        self.outbox.write(self.session.push(message))

    def goaway(self) -> None:
        """Ask the client to move; it is served until it has."""
        if self.cause is None and self.session.state is not State.CLOSED:
            self._write(self.session.goaway())

    def _respond(self, ref: int, frame: bytes | Pieces) -> None:
        if self.outbox.size > HIGH_WATER:
            try:
                self.outbox.wait_for_room(monotonic() + ROOM_TIMEOUT)
            except CallTimeout as error:
                frame = self.session.refusal(ref, Refusal(Code.EXIT, "CallTimeout", f"it was executed, but {error}"))
            except Disconnected:
                return
        if self.cause is None:
            try:
                self.outbox.write(frame)
            except Disconnected:
                # A closed outbox has already woken whoever ends this line.
                return

    def _check_line(self) -> None:
        if self.cause is not None:
            raise Disconnected(f"the line is down: {self.cause}", reason="disconnected") from self.cause

    def _write(self, frame: bytes | Pieces) -> None:
        try:
            self.outbox.write(frame)
        except Disconnected:
            # A closed outbox has already woken whoever ends this line.
            return

    # The beginning and the end.

    def await_hello(self, deadline: float) -> None:
        """Wait for the client to say who it is. Parks.

        raises: ProtocolError  it is not one that this server serves, or no client at all.
                Disconnected   it left, or was silent until the deadline.
        """
        while self.cause is None and self.session.state is State.FRESH:
            if not self.more(deadline):
                signed = self.session.key_id is not None
                text = "did not show in time that its hello is no recorded one" if signed else "said no hello in time"
                self.lose(Disconnected(f"connected, but {text}", reason="handshake_timeout"))
        if self.cause is not None:
            raise self.cause
        self.name_key()

    def welcome(self, keepalive: float | None) -> None:
        """Let the client begin, and send what init has pushed. The client may have left by now."""
        if self.cause is None:
            self.outbox.uncork(self.session.welcome(keepalive, self.max_pending))

    def say_farewell(self, error: ErpsError) -> None:
        """Tell the client why the line ends, and end it. Parks; see part()."""
        if self.session.state is State.CLOSED or self.outbox.error is not None:
            self.drop()
            return
        try:
            last = self.session.refusal(None, refusal_of(error))
        except EncodeError:
            last = self.session.refusal(None, Refusal(Code.EXIT, type(error).__name__, ""))
        self.part(last)
