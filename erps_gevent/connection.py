"""One socket and one session: what both ends share.

A Connection is an Inbox: its greenlet parks for its mailbox and for its socket at once. The read watcher is stopped
when it finds that greenlet parked elsewhere: a level-triggered one would spin. Until then it costs nothing.

    the socket ── pull ──▶ session.receive ──▶ take(packet) ──▶ the subclass
    the subclass ──▶ session.<verb> ──▶ outbox.write ──▶ the socket

Only the connection's own greenlet, and a server's `look`, read; everybody writes through the outbox. The line ends
once: `lose` records the first cause, and whoever runs the line sees it at its next look.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from time import monotonic
from typing import Any, Generic, TypeVar

import gevent
from gevent.hub import Waiter

from erps_gevent.errors import CallExit, Disconnected
from erps_gevent.integrations import forks
from erps_gevent.otp.bridge import FORKED
from erps_gevent.otp.inbox import Inbox
from erps_gevent.outbox import Outbox
from erps_gevent.transport.tcp import Stream
from erps_gevent.wire.session import Packet, Session

LINGER = 1.0  # seconds that the peer has for reading our last words, before the socket is closed
LAST_READS = 64  # reads of what the peer may have said before the line failed: as much as a kernel holds

S = TypeVar("S", bound=Session)


class Connection(Inbox, Generic[S]):
    """What both ends share: reading, parking, and ending once.

    stream: an open stream; it belongs to the connection from now on.

    cause:    why the line has ended, or None.
    doubt:    why writing has failed; the peer may have said something better, so it is no cause yet.
    heard:    when the peer last said anything, on the monotonic clock.
    readable: there may be something to read without waiting for it.
    watching: the read watcher runs.
    """

    __slots__ = (
        *("__weakref__", "cause", "doubt", "heard", "listening", "outbox", "readable", "session", "stream"),
        *("watcher", "watching"),
    )

    def __init__(self, stream: Stream, session: S, send_timeout: float) -> None:
        super().__init__()
        self.stream = stream
        self.session: S = session
        self.outbox = self._outbox(send_timeout)
        self.cause: Exception | None = None
        self.doubt: Exception | None = None
        self.heard = monotonic()
        # The handshake may have read what follows it, so the first look is at the stream.
        self.readable = True
        self.watcher: Any = self.hub.loop.io(stream.fileno(), 1)
        self.watching = False
        self.listening = False  # its greenlet is parked for the socket too
        forks.watch(self)

    def _outbox(self, send_timeout: float) -> Outbox:
        """The way out, which dialects differ in."""
        return Outbox(self.hub, self.stream, send_timeout, self._write_failed)

    def take(self, packet: Packet) -> None:
        """One packet has come. Must not park."""
        raise NotImplementedError

    def ended(self) -> Exception:
        """The cause, when the peer has closed the line."""
        raise NotImplementedError

    def name_key(self) -> None:
        """The peer has proved that it has the key that its packets name; note that, if they are signed."""
        if self.session.key_id is not None:
            self.stream.peer = replace(self.stream.peer, key_id=self.session.key_id)

    def pull(self) -> bool:
        """Read what is there, once, without parking; False if there was nothing or the line ended."""
        self.readable = False
        try:
            chunk = self.stream.receive(self.session.framer.room)
        except Disconnected as error:
            self.lose(error)
            return False
        if chunk is None:
            return False
        if not chunk:
            self.lose(self.ended())
            return False
        self.heard = monotonic()
        self.readable = not self.stream.drained
        for packet in self.session.receive(chunk):
            self.take(packet)
        if self.session.error is not None:
            self.lose(self.session.error)
        return self.cause is None

    def more(self, deadline: float | None) -> bool:
        """Read, or park until there is something to read or to do; False when the deadline has passed."""
        if self.doubt is not None:
            self._last_reads(self.doubt)
            return True
        if not self.readable and not self.park(deadline):
            return False
        if self.readable:
            self.pull()
        return True

    def park(self, deadline: float | None) -> bool:
        if not self.watching:
            self.watching = True
            self.watcher.start(self._readable)
        self.listening = True
        try:
            if deadline is not None:
                return Inbox.park(self, deadline)
            # As there, and here for the sake of one step less in every call.
            waiter: Waiter[Any] = Waiter(self.hub)
            self.parked = waiter
            waiter.get()
            self.served = 1
            return True
        finally:
            self.parked = None
            self.listening = False

    def lose(self, error: Exception) -> None:
        """The line has ended because of `error`; the first one stands."""
        if self.cause is None:
            self.cause = error
            self.wake()

    def part(self, last: bytes = b"") -> None:
        """Say `last`, shut the write side, let the peer read it, close.

        A socket closed with unread bytes in it resets the line, and the peer loses our last words; so what still
        comes is read and thrown away first.
        switch: parks for as long as the peer takes to read what is queued, and LINGER; never send_timeout without it
                reading anything.
        """
        self.lose(Disconnected("the line was closed here", reason="closed", sent=True))
        try:
            with contextlib.suppress(CallExit):
                if self.outbox.corked:
                    # What init has pushed means nothing without the welcome.
                    self.outbox.empty()
                if last:
                    self.outbox.write(last)
                self._say_the_rest()
                self.stream.send(self.stream.farewell())
                self.stream.shutdown_write()
                self._hear_the_rest()
        finally:
            self.drop()

    def drop(self) -> None:
        """Close the socket now. Idempotent."""
        self.lose(Disconnected("the line was closed here", reason="closed", sent=True))
        self.outbox.close(self.cause or Disconnected("closed"))
        # libuv: before the descriptor is closed.
        self.watcher.close()
        self.stream.close()

    def after_fork(self) -> None:
        """In a forked child: the line is the parent's. Close this copy of the descriptor, and say nothing on it."""
        if forks.is_lost(self.hub):
            forks.bury(self)
        else:
            self._let_go()
        self.stream.abandon()

    def _let_go(self) -> None:
        """Have nothing of this hub work on the line any more."""
        self.cause = self.cause or Disconnected(forks.FORKED_TEXT, reason=FORKED, sent=True)
        self.outbox.close(self.cause)
        self.watcher.stop()
        self.watcher.close()

    def _readable(self) -> None:
        self.readable = True
        if self.listening and self.parked is not None:
            parked, self.parked = self.parked, None
            parked.switch(None)
        else:
            self.watching = False
            self.watcher.stop()

    def _write_failed(self, error: Exception) -> None:
        self.doubt = error
        self.wake()

    def _last_reads(self, doubt: Exception) -> None:
        for _ in range(LAST_READS):
            if not self.pull():
                break
        self.lose(doubt)

    def _say_the_rest(self) -> None:
        """Park until the outbox is empty. Meanwhile read: a peer that cannot write may not read either."""
        hearing = True
        while self.outbox.size:
            self.outbox.tell(self.wake)
            if hearing:
                self.park(None)
                hearing = self.stream.receive() != b""
            else:
                Inbox.park(self, None)
        if self.outbox.error is not None:
            raise Disconnected("the line is down", reason="disconnected") from self.outbox.error

    def _hear_the_rest(self) -> None:
        """Read and throw away what comes until the peer has closed too, for LINGER at the most."""
        deadline = monotonic() + LINGER
        while self.stream.receive() != b"" and monotonic() < deadline:
            if self.stream.drained:
                self.park(deadline)
            else:
                gevent.sleep(0)
