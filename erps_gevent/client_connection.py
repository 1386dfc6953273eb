"""The client's end of a line: who waits for which reference, and the greenlet that reads.

    caller's greenlet    call ──▶ pending[ref] ──▶ outbox.write ──▶ parks ─ ─ ─ ─ ─ ─ ┐
    reader's greenlet    serve ──▶ pull ──▶ take(reply) ──▶ pending.pop(ref).switch ──┘

Every way out of that wait is an answer, the end of the line (each pending caller is failed once), or the deadline.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Protocol, TypeAlias

from gevent.hub import Waiter

from erps_gevent.alarm import Alarm
from erps_gevent.connection import Connection
from erps_gevent.errors import CallTimeout, Disconnected, ErpsError, Overloaded, ServerExit, StartError
from erps_gevent.integrations import forks
from erps_gevent.keepalive import Keepalive
from erps_gevent.otp.bridge import FORKED
from erps_gevent.otp.reasons import from_plain
from erps_gevent.outbox import Entry
from erps_gevent.transport.tcp import Stream
from erps_gevent.wire.packet import Type
from erps_gevent.wire.payloads import REPLY
from erps_gevent.wire.refusals import Refusal, error_of
from erps_gevent.wire.session import ClientSession, Packet, State


class Caller(Protocol):
    """Who waits for a reply: a gevent Waiter, or what stands for a thread that has no hub."""

    def switch(self, value: Any) -> object:
        """Here is the reply."""

    def throw(self, error: Exception) -> object:
        """There will be none."""


# Who waits, the entry of the request in the outbox, the request, the deadline, and the timeout that it came from.
Waiting: TypeAlias = "tuple[Caller, Entry | None, Any, float | None, float | None]"

_BEFORE_ALL = (Type.WELCOME, Type.ERROR)  # what is taken at once, also before the client knows that the line is up


class ClientConnection(Connection[ClientSession]):
    """The client's end of a line.

    max_pending: count of calls that may wait for their reply; the server may allow fewer.
    on_push:     called with each message, in this connection's greenlet; must not park.
    on_goaway:   called with this connection when the server asks to be left, likewise.
    keep_up:     called after a read that had messages; parks while their handler keeps up with them.

    answered: the line has answered a call.
    late:     count of replies that nobody waited for any more.
    leaving:  nothing more may be asked; a bye follows the last reply.
    since:    when it was made, on the monotonic clock.
    """

    __slots__ = (
        "alarm",
        "answered",
        "early",
        "keep_up",
        "keepalive",
        "late",
        "leaving",
        "max_pending",
        "on_goaway",
        "on_push",
        "pending",
        "polite",
        "pushed",
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
        keep_up: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(stream, session, send_timeout)
        self.outbox.sign = session.sign
        self.max_pending = max_pending
        self.on_push = on_push
        self.on_goaway = on_goaway
        self.keep_up = keep_up
        self.pushed = False
        self.pending: dict[int, Waiting] = {}
        self.alarm = Alarm(self.hub, self._give_up_late)
        self.answered = False
        self.early: list[Packet] | None = []
        self.leaving = False
        self.polite = False
        self.since = monotonic()
        self.late = 0
        self.keepalive = self._keepalive()

    def _keepalive(self) -> Keepalive:
        return Keepalive(self)

    # What callers do.

    def call(self, request: Any, timeout: float | None, remaining: float | None) -> Any:
        """Send a call and wait for its answer; see Client.call. The line is up and has room.

        remaining: seconds that are left of the timeout.
        """
        waiter: Waiter[Any] = Waiter(self.hub)
        ref, entry = self.ask(waiter, request, timeout, remaining)
        try:
            return waiter.get()
        except BaseException:
            # This greenlet is being killed, or a gevent.Timeout has struck.
            self.abandon(ref, entry)
            raise

    def ask(
        self, waiter: Caller, request: Any, timeout: float | None, remaining: float | None
    ) -> tuple[int, Entry | None]:
        """Send a call whose outcome `waiter` is told, once, in the hub; what it returns is for `abandon`.

        raises: as `call`, if it was not sent.
        """
        if len(self.pending) >= self.max_pending:
            text = f"{self.max_pending} calls of this line are pending; wait for replies, or raise max_pending"
            raise Overloaded(text, reason="overloaded", request=request)
        ref, frame = self.session.call(request, remaining)
        # atomic: no switch from here to where the caller parks, or nobody would fail this call if the line ended.
        if self.cause is not None:
            # An application type's encoder has parked, and the line was lost meanwhile.
            raise self._lost(request, sent=False)
        entry = self.outbox.write(frame)
        deadline = None if remaining is None else monotonic() + remaining
        self.pending[ref] = waiter, entry, request, deadline, timeout
        if deadline is not None and deadline < self.alarm.at:
            self.alarm.set(deadline)
        return ref, entry

    def abandon(self, ref: int, entry: Entry | None) -> None:
        """Nobody waits for this call any more."""
        if self.pending.pop(ref, None) is not None:
            self._forget(ref, entry)
            self._look_at_rest()

    def _give_up_late(self, now: float) -> float:
        """Give up the calls whose deadline has passed; return the earliest deadline of the others."""
        earliest = inf
        for ref, (waiter, entry, request, deadline, timeout) in list(self.pending.items()):
            if deadline is None:
                continue
            if deadline > now:
                earliest = min(earliest, deadline)
                continue
            del self.pending[ref]
            sent = self._forget(ref, entry)
            error = CallTimeout(f"no answer in {timeout} s", reason="timeout", request=request, sent=sent)
            self.hub.loop.run_callback(waiter.throw, error)
        self._look_at_rest()
        return earliest

    def _look_at_rest(self) -> None:
        """The reader says bye when nobody waits any more; unless it has taken the last reply, it has to be told."""
        if self.leaving and not self.pending:
            self.wake()

    def cast(self, request: Any) -> None:
        self.outbox.write(self.session.cast(request))

    def _forget(self, ref: int, entry: Entry | None) -> bool:
        """Nobody waits for `ref` any more; True if the request may have been executed."""
        if self.outbox.take_back(entry):
            return False
        if self.cause is None:
            with contextlib.suppress(Disconnected):
                self.outbox.write(self.session.cancel(ref))
        return True

    # What the reader does.

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
        self.name_key()

    def serve(self) -> Exception:
        """Read until the line has ended, fail what is pending, and return why. Parks all the time."""
        try:
            early, self.early = self.early, None
            for packet in early or ():
                self.take(packet)
            while self.cause is None:
                if self.leaving and not self.pending:
                    self.leave_now(Disconnected("this client said bye", reason="bye", sent=True))
                elif self.keepalive.silent is not None:
                    self.keepalive.look_again(self.keepalive.silent)
                else:
                    self.more(None)
                    if self.pushed:
                        self.pushed = False
                        self.keep_up()
                    # A server that never stops talking would keep the hub from everybody else. All of the loop's
                    # conditions are looked at between this, which may park, and the next wait.
                    self.take_turn()
            return self.cause
        finally:
            # Whatever ends the reader: nobody may wait for it.
            self.lose(Disconnected("the reader of the line was ended", reason="killed", sent=True))
            self._fail_pending()

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
        if self.polite and self.outbox.error is None and self.session.state is not State.CLOSED:
            self.keepalive.stop()
            self.part(self.session.bye())
        else:
            self.drop()

    def _let_go(self) -> None:
        super()._let_go()
        self.keepalive.stop()
        self.alarm.stop()
        self.polite = False
        pending, self.pending = self.pending, {}
        for waiter, _, request, *_ in pending.values():
            # Sent, whatever this copy has queued: the parent sends it.
            error = Disconnected(forks.FORKED_TEXT, reason=FORKED, request=request, sent=True)
            self.hub.loop.run_callback(waiter.throw, error)
        # The reader looks again, and ends.
        self.wake()

    def drop(self) -> None:
        self.keepalive.stop()
        super().drop()

    def _readable(self) -> None:
        """Read in the hub's own greenlet, which saves two switches a reply; the reader is for all the rest.

        None of this parks, and an application type's `unpack`, the only code of the user's in it, may not either.
        """
        if self.early is None and self.listening and self.cause is None and self.doubt is None:
            try:
                self.pull()
            except BaseException:
                self.lose(Disconnected("the reader of the line was ended", reason="killed", sent=True))
                raise
            if self.readable or self.pushed or self.leaving:
                self.wake()
        else:
            super()._readable()

    # What comes over the line.

    def take(self, packet: Packet) -> None:
        type_, ref, value, _ = packet
        if self.early is not None and type_ not in _BEFORE_ALL:
            self._take_early(packet, self.early)
        elif type_ is REPLY:
            waiting = self.pending.pop(ref, None) if ref else None
            if waiting is None:
                self.late += 1
                return
            self.answered = True
            self.hub.loop.run_callback(waiting[0].switch, value)
        elif type_ is Type.PUSH:
            self.pushed = True
            self.on_push(value)
        elif type_ is Type.ERROR:
            self._take_error(ref, value)
        elif type_ is Type.GOAWAY:
            self.on_goaway(self)
        elif type_ is Type.WELCOME:
            self.max_pending = min(self.max_pending, self.session.max_pending)

    def _take_early(self, packet: Packet, early: list[Packet]) -> None:
        if packet.type is Type.HELLO:
            with contextlib.suppress(Disconnected):
                self.outbox.write(self.session.proof())
        else:
            # It came with the welcome, and is for after handle_connect.
            early.append(packet)

    def ended(self) -> Exception:
        error = Disconnected("the server closed the line", reason="closed", sent=True)
        # In the middle of a packet: it was killed, which is no fault of its protocol and heals as fast.
        error.__cause__ = self.session.eof()
        return error

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
        else:
            self.late += 1

    def _fail_pending(self) -> None:
        pending, self.pending = self.pending, {}
        self.alarm.stop()
        for waiter, entry, request, *_ in pending.values():
            error = self._lost(request, sent=not (entry and entry[0]))
            self.hub.loop.run_callback(waiter.throw, error)

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
