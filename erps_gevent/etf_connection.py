"""Both ends of a line to Erps 0.7: what is different where no packet says hello, goaway or "I am still here".

Everything else is as in `client_connection.py` and `server_connection.py`; what is sent is paced by `pacing.py`.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from erps_gevent.client_connection import ClientConnection
from erps_gevent.keepalive import Keepalive
from erps_gevent.otp.messages import StopRequest
from erps_gevent.otp.words import SHUTDOWN
from erps_gevent.outbox import Entry
from erps_gevent.pacing import PacedOutbox
from erps_gevent.server_connection import ServerConnection
from erps_gevent.wire.pieces import Pieces
from erps_gevent.wire.session import Packet, State

# seconds that a call without a caller is taken for one that the server works on. A line on which nothing is said for
# longer may be forgotten by a NAT.
GIVEN_UP_FOR = 60.0


class EtfClientConnection(ClientConnection):
    """The client's end. `pacing` is seconds between two packets; all else as for ClientConnection.

    given_up: calls that nobody waits for any more, by reference: the server is not told, and its late answer says that
              it reads again. Each until when that is worth waiting for.
    """

    __slots__ = ("given_up", "pacing")
    outbox: PacedOutbox

    def __init__(self, *args: Any, pacing: float) -> None:
        self.pacing = pacing
        self.given_up: dict[int, tuple[Entry | None, float]] = {}
        super().__init__(*args)

    def _outbox(self, send_timeout: float) -> PacedOutbox:
        return PacedOutbox(self.hub, self.stream, send_timeout, self._write_failed, self.pacing)

    def _keepalive(self) -> Keepalive:
        return UnansweredKeepalive(self)

    def take(self, packet: Packet) -> None:
        ref = packet.ref
        entry = None
        if ref in self.pending:
            entry = self.pending[ref][1]
        elif ref in self.given_up:
            entry, _ = self.given_up.pop(ref)
        super().take(packet)
        if entry is not None:
            self.outbox.answered(entry)

    def _forget(self, ref: int, entry: Entry | None) -> bool:
        sent = super()._forget(ref, entry)
        if sent:
            self.given_up[ref] = entry, monotonic() + GIVEN_UP_FOR
        return sent

    def is_busy(self) -> bool:
        """Whether the server may be in a handler, as far as anybody can know here."""
        now = monotonic()
        while self.given_up:
            oldest = next(iter(self.given_up))
            if self.given_up[oldest][1] > now:
                return True
            del self.given_up[oldest]
        return bool(self.pending or self.outbox.size)


class UnansweredKeepalive(Keepalive):
    """As Keepalive, for a server that does not answer it."""

    __slots__ = ("_is_busy",)

    def __init__(self, line: EtfClientConnection) -> None:
        super().__init__(line)
        self._is_busy = line.is_busy

    def start(self, interval: float, dead_after: float | None) -> None:
        """Say something after `interval` seconds of silence, and so on.

        Nobody answers, so a silent line is no dead one; the kernel's own keepalive finds out. Nothing is said while
        a call is unanswered, also if its caller has given up: a server that is busy with it would find the keepalive
        and the next packet together.
        """
        self.stop()
        if self.line.cause is not None:
            return
        silence = monotonic() - self.line.heard
        if silence >= interval:
            silence = 0.0
            if not self._is_busy():
                self._say()
        self._again(interval - silence, interval, dead_after)


class EtfServerConnection(ServerConnection):
    """The server's end. `pacing` is seconds between two packets; all else as for ServerConnection."""

    __slots__ = ("pacing",)

    def __init__(self, *args: Any, pacing: float) -> None:
        self.pacing = pacing
        super().__init__(*args)

    def _outbox(self, send_timeout: float) -> PacedOutbox:
        return PacedOutbox(self.hub, self.stream, send_timeout, self._write_failed, self.pacing)

    def goaway(self) -> None:
        """The client cannot be asked to move, so the line ends when it is idle."""
        super().goaway()
        self.wake()

    def _take_call(self, ref: int, request: Any, meta: Any) -> None:
        # The references of Erps are hashes. Its client has forgotten the first caller of two that share one, and would
        # give the first answer to the second caller.
        earlier = self.calls.pop(ref, None)
        if earlier is not None:
            earlier.done = True
        super()._take_call(ref, request, meta)

    def _more_events(self, deadline: float | None) -> bool:
        if self.session.state is State.LEAVING and not self.calls:
            if not self.outbox.size:
                # A last look: what has come by now is served.
                if not self.pull() and self.cause is None:
                    self.mailbox.append(StopRequest(SHUTDOWN))
                return True
            self.outbox.tell(self.wake)
        return super()._more_events(deadline)

    def _respond(self, ref: int, frame: bytes | Pieces) -> None:
        super()._respond(ref, frame)
        if self.session.state is State.LEAVING:
            self.wake()
