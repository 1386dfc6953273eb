"""The outbox of a line to Erps 0.7, which loses what shares a read with something else.

    write(frame) ──▶ queue ──▶ gate open? ─ yes ─▶ one frame is sealed and sent; the gate closes
                                 ▲                       │ it has left entirely
                                 └── after `pacing` ─────┘

An Erps end takes all that has arrived for one packet: a server that finds two stops, a client drops both. So one frame
is sent at a time, and the next when the peer has had time to read. A call says when it was read: its reply opens the
gate at once. Until then the server may be in its handler, and would find the next two frames together, so a call that
is not answered keeps the gate for much longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.hub import Hub

from erps_gevent.errors import Disconnected
from erps_gevent.outbox import HIGH_WATER, Entry, Outbox
from erps_gevent.transport.tcp import Stream
from erps_gevent.wire.packet import Type
from erps_gevent.wire.pieces import Pieces

UNANSWERED = 32  # times `pacing` that a call keeps the gate: 4.8 s of the default, as long as a caller of Erps waits
FRAME_SIZE = HIGH_WATER // 64  # bytes that a waiting frame counts for at least: 64 take seconds to leave

_TYPE = 8  # where in a frame its type is
_NONE: Entry = [b""]


class PacedOutbox(Outbox):
    """An Outbox that sends one frame at a time.

    pacing: seconds between two frames; 0 sends them singly and at once.

    `write` always returns an entry: it is how `answered` knows the frame again.
    """

    __slots__ = ("_bytes", "_gate", "_last", "_pacing", "_pause")

    def __init__(
        self, hub: Hub, stream: Stream, send_timeout: float, failed: Callable[[Exception], Any], pacing: float
    ) -> None:
        self._bytes = 0
        self._pacing = pacing
        self._pause = 0.0  # seconds that the gate stays closed after the frame that was sent last; 0 if it is open
        self._gate: Any = None
        self._last: Entry = _NONE
        super().__init__(hub, stream, send_timeout, failed)

    @property
    def size(self) -> int:
        """Bytes that have not left; a frame that waits its turn counts for FRAME_SIZE more."""
        return self._bytes + FRAME_SIZE * len(self._queue)

    @size.setter
    def size(self, value: int) -> None:
        self._bytes = value - FRAME_SIZE * len(self._queue)

    def write(self, frame: bytes | Pieces) -> Entry:
        if self.error is not None:
            raise Disconnected(f"the line is down: {self.error}", reason="disconnected") from self.error
        entry: Entry = [frame]
        if frame:
            self._queue.append(entry)
            self._bytes += len(frame)
            self.flush()
        return entry

    def answered(self, entry: Entry | None) -> None:
        """The peer has answered this call. If nothing was sent since, it is ready for the next frame."""
        if entry is self._last and self._gate is not None:
            self._open_gate()

    def flush(self) -> None:
        self._send_begun()
        self._close_gate()
        while self._queue and not (self._pause or self._sealed or self._begun or self.corked or self.error is not None):
            self._send(self._next_batch())
            self._close_gate()
        self._tell_of_room()

    def close(self, error: Exception) -> None:
        super().close(error)
        self._stop_gate()

    def _next_batch(self) -> bytes | Pieces:
        # Those that were taken back are gone from the ends, and may be left in the middle.
        while not (entry := self._queue.popleft())[0]:
            continue
        frame, entry[0] = entry[0], b""
        self._bytes -= len(frame)
        self._last = entry
        self._pause = self._pacing * (UNANSWERED if frame[_TYPE] == Type.CALL else 1)
        return frame

    def _close_gate(self) -> None:
        """Begin to wait, once the frame that was sent last has left entirely."""
        if self._pause and self._gate is None and not (self._sealed or self._begun or self.error is not None):
            # libuv has millisecond timers and warns below them.
            self._gate = self._hub.loop.timer(max(self._pause, 0.001))
            # From now on, and not from when this turn of the loop began: a handler may have computed since.
            self._gate.start(self._open_gate, update=True)

    def _open_gate(self) -> None:
        self._stop_gate()
        self.flush()

    def _stop_gate(self) -> None:
        self._pause = 0.0
        if self._gate is not None:
            self._gate.close()
            self._gate = None
