"""One socket and one session.

A Connection is an Inbox: its greenlet parks for its mailbox and for its socket at once. The read watcher runs only
while that greenlet is parked here, because a level-triggered watcher spins while a handler is busy elsewhere.

    the socket ── pull ──▶ session.receive ──▶ take(packet) ──▶ the subclass
    the subclass ──▶ session.<verb> ──▶ outbox.write ──▶ the socket

Only the connection's own greenlet, and `look`, read; everybody writes through the outbox. The line ends once: `lose`
records the first cause, and whoever runs the line sees it at its next look.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar

import gevent
from gevent.hub import Hub, Waiter

from erps_gevent.errors import (
    CallExit,
    CallTimeout,
    Disconnected,
    EncodeError,
    ErpsError,
    ErrorReply,
    Overloaded,
    ServerExit,
    StartError,
)
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import Call, Cast, Event, From, StopRequest
from erps_gevent.otp.reasons import Shutdown, from_plain
from erps_gevent.outbox import HIGH_WATER, Entry, Outbox
from erps_gevent.transport.tcp import Stream
from erps_gevent.wire.packet import Type
from erps_gevent.wire.refusals import Code, Refusal, error_of, refusal_of
from erps_gevent.wire.session import ClientSession, Packet, ServerSession, Session, State

TURN_EVENTS = 64  # events that a busy server takes before the other greenlets have a turn
TURN_SECONDS = 0.005
LOOK_EVENTS = 256  # events that wait unserved, above which a parked server's line is not looked at
ROOM_TIMEOUT = 5.0  # seconds that a push or a reply waits for room
LINGER = 1.0  # seconds that a refused peer has for reading why, before the socket is closed

DISCONNECTED = Shutdown("disconnected")

S = TypeVar("S", bound=Session)


class Connection(Inbox, Generic[S]):
    """What both ends share: reading, parking, and ending once.

    stream: an open stream; it belongs to the connection from now on.
    """

    __slots__ = ("cause", "doubt", "heard", "outbox", "readable", "session", "stream", "watcher")

    def __init__(self, stream: Stream, session: S, send_timeout: float) -> None:
        super().__init__()
        self.stream = stream
        self.session: S = session
        self.outbox = Outbox(self.hub, stream, send_timeout, self._write_failed)
        self.cause: Exception | None = None
        self.doubt: Exception | None = None
        self.heard = monotonic()
        # The handshake may have read what follows it, so the first look is at the stream.
        self.readable = True
        self.watcher = self.hub.loop.io(stream.fileno(), 1)

    def take(self, packet: Packet) -> None:
        """One packet has come. Must not park."""
        raise NotImplementedError

    def pull(self) -> bool:
        """Read what is there, once, without parking; False if there was nothing or the line ended."""
        try:
            chunk = self.stream.receive()
        except Disconnected as error:
            self.lose(error)
            return False
        if chunk is None:
            return False
        if not chunk:
            self.lose(self.session.eof() or Disconnected("the peer closed the line", reason="closed", sent=True))
            return False
        self.heard = monotonic()
        for packet in self.session.receive(chunk):
            self.take(packet)
        if self.session.error is not None:
            self.lose(self.session.error)
        return self.cause is None

    def more(self, deadline: float | None) -> bool:
        """Read, or park until there is something to read or to do; False when the deadline has passed."""
        if self.doubt is not None:
            # The peer may have said why before it closed.
            while self.pull():
                continue
            self.lose(self.doubt)
            return True
        if self.readable:
            self.readable = False
            if self.pull():
                self.readable = not self.stream.drained
            return True
        return self.park(deadline)

    def park(self, deadline: float | None) -> bool:
        self.watcher.start(self._readable)
        try:
            return super().park(deadline)
        finally:
            self.watcher.stop()

    def _readable(self) -> None:
        self.readable = True
        parked, self.parked = self.parked, None
        if parked is not None:
            parked.switch(None)

    def lose(self, error: Exception) -> None:
        """The line has ended because of `error`; the first one stands."""
        if self.cause is None:
            self.cause = error
            self.wake()

    def _write_failed(self, error: Exception) -> None:
        self.doubt = error
        self.wake()

    def part(self, last: bytes = b"") -> None:
        """Say `last`, shut the write side, let the peer read it, close. Parks for at most LINGER + the peer's pace.

        A socket closed with unread bytes in it resets the line, and the peer loses our last words; so what still
        comes is read and thrown away first.
        """
        deadline = monotonic() + LINGER
        with contextlib.suppress(CallExit):
            if last:
                self.outbox.write(last)
            self.outbox.wait_for_room(deadline, above=0)
            self.stream.send(self.stream.farewell())
            self.stream.shutdown_write()
            while (left := deadline - monotonic()) > 0 and self.stream.receive() != b"":
                self.stream.wait_readable(left)
        self.drop()

    def drop(self) -> None:
        """Close the socket now. Idempotent."""
        self.lose(Disconnected("the line was closed here", reason="closed", sent=True))
        self.outbox.close(self.cause or Disconnected("closed"))
        self.watcher.close()
        self.stream.close()


class RemoteFrom(From):
    """The reply address of a call that came over a line."""

    __slots__ = ("connection", "ref")
    is_remote = True

    def __init__(self, connection: ServerConnection, ref: int, deadline: float | None) -> None:
        self.hub: Hub = connection.hub
        self.deadline = deadline
        self.done = False
        self.connection = connection
        self.ref = ref

    def _reply(self, value: Any) -> None:
        self.connection.answer(self.ref, value)

    def _fail(self, error: CallExit | ErrorReply) -> None:
        self.connection.refuse(self.ref, error)


class ServerConnection(Connection[ServerSession]):
    """The server's end: the inbox of a server process, merging its mailbox and its packets, taking turns."""

    __slots__ = (
        "arrived",
        "calls",
        "calls_served",
        "early",
        "events",
        "first",
        "line_first",
        "max_pending",
        "served",
        "turn_ends",
    )

    def __init__(self, stream: Stream, session: ServerSession, send_timeout: float, max_pending: int) -> None:
        super().__init__(stream, session, send_timeout)
        self.max_pending = max_pending
        self.calls: dict[int, RemoteFrom] = {}
        self.calls_served = 0
        self.events: deque[Event] = deque()
        self.line_first = True
        self.arrived = monotonic()
        self.served = 0
        self.turn_ends = 0.0
        # Nothing may overtake the welcome, and init may push; if it fails, those pushes are not sent.
        self.outbox.corked = True
        self.first = b""
        self.early: list[Entry | None] = []

    def next(self, deadline: float | None = None) -> Any:
        """The next event: from the line and the mailbox in turns. None when the deadline has passed. Parks."""
        self.served += 1
        if self.served >= TURN_EVENTS or monotonic() > self.turn_ends:
            self._yield()
        while True:
            if self.events and (self.line_first or not self.mailbox):
                self.line_first = False
                event = self.events.popleft()
                if type(event) is not Call or self._is_wanted(event.from_):
                    return event
                continue
            if self.mailbox:
                self.line_first = True
                return self.mailbox.popleft()
            if self.cause is not None:
                return StopRequest(DISCONNECTED)
            if not self._more_events(deadline):
                return None

    def _yield(self) -> None:
        if self.served > 1:
            gevent.sleep(0)
        self.served = 0
        self.turn_ends = monotonic() + TURN_SECONDS

    def _more_events(self, deadline: float | None) -> bool:
        if self.outbox.size > HIGH_WATER:
            # It does not read what it asked for, so it is not asked for more.
            try:
                self.outbox.wait_for_room(deadline)
            except CallTimeout:
                return False
            except Disconnected as error:
                self.lose(error)
        return self.more(deadline)

    def park(self, deadline: float | None) -> bool:
        woken = super().park(deadline)
        self.served = 0
        self.turn_ends = monotonic() + TURN_SECONDS
        return woken

    def _is_wanted(self, from_: From) -> bool:
        """False if the caller has given up before the call was started."""
        if self.cause is None and not from_.done and (from_.deadline is None or monotonic() < from_.deadline):
            return True
        from_.done = True
        self.calls.pop(from_.ref, None)  # type: ignore[attr-defined]
        return False

    def take(self, packet: Packet) -> None:
        type_, ref, value, meta = packet
        if type_ is Type.CALL:
            assert ref is not None
            if len(self.calls) >= self.max_pending:
                text = f"{self.max_pending} calls of this line are pending; wait for replies, or raise max_pending"
                self._write(self.session.refusal(ref, refusal_of(Overloaded(text))))
                return
            remaining = meta.get("t") if meta else None
            deadline = monotonic() + remaining if type(remaining) is float else None
            from_ = self.calls[ref] = RemoteFrom(self, ref, deadline)
            self.events.append(Call(value, from_))
        elif type_ is Type.CAST:
            self.events.append(Cast(value))
        elif type_ is Type.CANCEL:
            cancelled = self.calls.pop(ref, None) if ref else None
            if cancelled is not None:
                cancelled.done = True
        elif type_ is Type.KEEPALIVE:
            if self.outbox.size < HIGH_WATER:
                self._write(self.session.keepalive())
        elif type_ is Type.BYE:
            self.lose(Disconnected("the client said bye", reason="bye", sent=True))

    def look(self) -> None:
        """Read, without parking and within bounds, while a handler is parked: keepalives, cancels, byes, the end."""
        while self.cause is None and len(self.events) < LOOK_EVENTS and self.outbox.size < HIGH_WATER:
            if not self.pull():
                return

    def answer(self, ref: int, value: Any) -> None:
        """Send the reply to the call `ref`, unless its caller has given up.

        raises: EncodeError  the value cannot be sent; the caller is told so.
        """
        if self.calls.pop(ref, None) is None or self.cause is not None:
            return
        try:
            frame = self.session.reply(ref, value)
        except EncodeError as error:
            self._write(self.session.refusal(ref, Refusal(Code.EXIT, "EncodeError", str(error))))
            raise
        self.calls_served += 1
        if self.outbox.size > HIGH_WATER and not self._has_room():
            return
        self._write(frame)

    def refuse(self, ref: int, error: ErpsError) -> None:
        """Answer the call `ref` with an error."""
        if self.calls.pop(ref, None) is not None and self.cause is None:
            self._write(self.session.refusal(ref, refusal_of(error)))

    def push(self, message: Any, timeout: float | None = ROOM_TIMEOUT) -> None:
        """Send `message` to the client; see Server.push."""
        if self.cause is not None:
            raise Disconnected(f"the line is down: {self.cause}", reason="disconnected") from self.cause
        if self.outbox.size > HIGH_WATER:
            self.outbox.wait_for_room(None if timeout is None else monotonic() + timeout)
        entry = self.outbox.write(self.session.push(message))
        if self.outbox.corked:
            self.early.append(entry)

    def await_hello(self, deadline: float) -> None:
        """Wait for the client to say who it is. Parks.

        raises: ProtocolError  it is not one that this server serves, or no client at all.
                Disconnected   it left, or was silent until the deadline.
        """
        while self.cause is None and self.session.state is State.FRESH:
            if not self.more(deadline):
                self.lose(Disconnected("connected, but said no hello in time", reason="handshake_timeout"))
        if self.cause is not None:
            raise self.cause

    def prepare(self, keepalive: float | None) -> None:
        """Let this end speak, so that init can push. What it says waits for `welcome`."""
        self.first = self.session.welcome(keepalive, self.max_pending)

    def welcome(self, keepalive: float | None) -> None:
        if not self.first:
            self.prepare(keepalive)
        self.early.clear()
        self.outbox.uncork(self.first)
        self.wake()

    def goaway(self) -> None:
        """Ask the client to move; it is served until it has."""
        if self.cause is None and self.session.state is not State.CLOSED:
            self._write(self.session.goaway())

    def say_farewell(self, error: ErpsError) -> None:
        """Tell the client why the line ends, and end it. Parks."""
        self.outbox.corked = False
        for entry in self.early:
            self.outbox.take_back(entry)
        if self.session.state is State.CLOSED or self.outbox.error is not None:
            self.drop()
        else:
            self.part(self.session.refusal(None, refusal_of(error)))

    def _has_room(self) -> bool:
        try:
            self.outbox.wait_for_room(monotonic() + ROOM_TIMEOUT)
        except CallExit as error:
            self.lose(error)
            return False
        return True

    def _write(self, frame: bytes) -> None:
        # A closed outbox has already woken whoever ends this line.
        with contextlib.suppress(Disconnected):
            self.outbox.write(frame)


class ClientConnection(Connection[ClientSession]):
    """The client's end: who waits for which reference, and the greenlet that reads.

    on_push:   called with each message, in this connection's greenlet; must not park.
    on_goaway: called once, when the server asks to be left.
    """

    __slots__ = (
        "answered",
        "asked",
        "clock",
        "early",
        "late",
        "leaving",
        "max_pending",
        "on_goaway",
        "on_push",
        "pending",
        "polite",
        "since",
    )

    def __init__(
        self,
        stream: Stream,
        session: ClientSession,
        send_timeout: float,
        max_pending: int,
        on_push: Callable[[Any], None],
        on_goaway: Callable[[ClientConnection], None],
    ) -> None:
        super().__init__(stream, session, send_timeout)
        self.max_pending = max_pending
        self.on_push = on_push
        self.on_goaway = on_goaway
        self.pending: dict[int, tuple[Waiter[Any], Entry | None, Any]] = {}
        self.answered = False
        self.early: list[Packet] | None = []
        self.leaving = False
        self.polite = False
        self.since = monotonic()
        self.late = 0
        self.asked: float | None = None  # when the keepalive was sent that nothing has answered yet
        self.clock: Any = None

    def call(self, request: Any, timeout: float | None, deadline: float | None) -> Any:
        """Send a call and wait for its answer; see Client.call. The line is up and has room."""
        if len(self.pending) >= self.max_pending:
            text = f"{self.max_pending} calls of this line are pending; wait for replies, or raise max_pending"
            raise Overloaded(text, reason="overloaded", request=request)
        remaining = None if deadline is None else max(deadline - monotonic(), 0.0)
        ref, frame = self.session.call(request, remaining)
        waiter: Waiter[Any] = Waiter(self.hub)
        # atomic: no switch from here to get(), or the line could end between and nobody fail this call.
        entry = self.outbox.write(frame)
        self.pending[ref] = waiter, entry, request
        timer = None
        if remaining is not None:
            # libuv has millisecond timers and warns below them.
            timer = self.hub.loop.timer(max(remaining, 0.001))
            timer.start(waiter.switch, _TIMED_OUT)
        try:
            value = waiter.get()
        finally:
            if timer is not None:
                timer.close()
            # Still there: the deadline passed, or this greenlet is being killed.
            sent = self.pending.pop(ref, None) is None or self._forget(ref, entry)
            if self.leaving and not self.pending:
                self.wake()
        if value is _TIMED_OUT:
            raise CallTimeout(f"no answer in {timeout} s", reason="timeout", request=request, sent=sent)
        return value

    def _forget(self, ref: int, entry: Entry | None) -> bool:
        """Nobody waits for `ref` any more; True if the request may have been executed."""
        if self.outbox.take_back(entry):
            return False
        if self.cause is None:
            with contextlib.suppress(Disconnected):
                self.outbox.write(self.session.cancel(ref))
        return True

    def cast(self, request: Any) -> None:
        self.outbox.write(self.session.cast(request))

    def greet(self, deadline: float | None) -> None:
        """Say hello and wait for the welcome. Parks.

        raises: what the peer said against it, or Disconnected.
        """
        self.outbox.write(self.session.hello())
        while self.cause is None and self.session.state is State.GREETING:
            if not self.more(deadline):
                text = "connected, but no welcome came in time: that is no erps_gevent server, or its init is slow"
                self.lose(Disconnected(text, reason="connect_timeout"))
        if self.cause is not None and self.session.state is not State.OPEN:
            raise self.cause

    def serve(self) -> Exception:
        """Read until the line has ended, fail what is pending, and return why. Parks all the time."""
        early, self.early = self.early, None
        for packet in early or ():
            self.take(packet)
        while self.cause is None:
            if self.leaving and not self.pending:
                self.leave_now(Disconnected("this client said bye", reason="bye", sent=True))
            else:
                self.more(None)
        self._fail_pending()
        return self.cause

    def leave(self) -> None:
        """Say bye when the last reply is in. Nothing more may be asked on this line."""
        self.leaving = True
        self.wake()

    def leave_now(self, why: Disconnected) -> None:
        """End the line of our own will, with a bye."""
        self.polite = True
        self.lose(why)

    def finish(self) -> None:
        """Close: with a bye if it was our will, and at once if it was not. Parks for the former."""
        if self.polite and self.outbox.error is None:
            if self.clock is not None:
                self.clock.close()
            self.part(self.session.bye())
        else:
            self.drop()

    def keep_alive(self, interval: float, dead_after: float | None) -> None:
        """Say something after `interval` seconds of silence; give the line up after `dead_after` without an echo.

        A line that has calls pending is left alone: the server may be busy, and the kernel's keepalive watches it too.
        """
        silence = monotonic() - self.heard
        if self.clock is not None:
            self.clock.close()
        if self.cause is not None:
            return
        if silence < interval:
            self.asked = None
        elif self.asked is None:
            self.asked = monotonic()
            self._say_keepalive()
        elif dead_after and not self.pending and monotonic() - self.asked >= max(dead_after - interval, interval / 2):
            text = f"the server has been silent for {silence:.0f} s and did not answer a keepalive"
            self.lose(Disconnected(text, reason="timeout", sent=True))
            return
        self.clock = self.hub.loop.timer(interval - silence if silence < interval else interval / 2)
        self.clock.start(self.keep_alive, interval, dead_after)

    def _say_keepalive(self) -> None:
        if not self.leaving:
            with contextlib.suppress(Disconnected):
                self.outbox.write(self.session.keepalive())

    def drop(self) -> None:
        if self.clock is not None:
            self.clock.close()
        super().drop()

    def take(self, packet: Packet) -> None:
        type_, ref, value, _ = packet
        if type_ is Type.WELCOME:
            self.max_pending = min(self.max_pending, self.session.max_pending)
        elif self.early is not None and type_ is not Type.ERROR:
            # It came with the welcome, and is for after handle_connect.
            self.early.append(packet)
        elif type_ is Type.REPLY:
            waiting = self.pending.pop(ref, None) if ref else None
            if waiting is None:
                self.late += 1
                return
            self.answered = True
            self.hub.loop.run_callback(waiting[0].switch, value)
        elif type_ is Type.PUSH:
            self.on_push(value)
        elif type_ is Type.ERROR:
            self._take_error(ref, value)
        elif type_ is Type.GOAWAY:
            self.on_goaway(self)

    def _take_error(self, ref: int | None, refusal: Refusal) -> None:
        waiting = self.pending.pop(ref, None) if ref else None
        error = error_of(refusal, waiting[2] if waiting else None)
        if isinstance(error, ServerExit | StartError):
            error.reason = from_plain(error.reason)
        if ref is None:
            self.lose(error)
        elif waiting is not None:
            self.answered = True
            self.hub.loop.run_callback(waiting[0].throw, error)

    def _fail_pending(self) -> None:
        pending, self.pending = self.pending, {}
        for waiter, entry, request in pending.values():
            self.hub.loop.run_callback(waiter.throw, self._lost(request, sent=not (entry and entry[0])))

    def _lost(self, request: Any, sent: bool) -> Exception:
        cause = self.cause
        if isinstance(cause, ServerExit) and sent:
            error: ErpsError = type(cause)(
                str(cause), reason=cause.reason, request=request, kind=cause.kind, message=cause.message
            )
        else:
            text = f"the line was lost before the answer came: {cause}"
            error = Disconnected(text, reason="disconnected", request=request, sent=sent)
        error.__cause__ = cause
        return error


_TIMED_OUT = object()
