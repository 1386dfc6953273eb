"""What is on its way out of one connection.

    write(frame) ──▶ first of this turn of the loop? ─ yes ─▶ sealed and sent at once
                          │ no
                          ▼
                     queue ── at the end of the turn ──▶ joined, sealed (TLS), sent
                                                             │ the socket is full
                                                             ▼
                                               `sealed`, finished by the write watcher

A large frame is not joined with others. It waits in parts in `begun`, each sealed when the one before it has left; the
first, with the header, and the last are copies.

Writing what leaves in one turn together is worth more than anything else on this path. Bytes given to the outbox belong
to it: a frame is dropped only while no byte of it has been sealed, and a begun one is always finished, whoever has been
killed meanwhile. Everything here runs without parking, but for `wait_for_room`.

On a line that signs, a frame is signed when it leaves the queue: signatures count the packets, and one that is taken
back, or overtaken by the welcome, must not have been counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

from gevent.hub import Hub, Waiter

from erps_gevent.errors import CallTimeout, Disconnected
from erps_gevent.transport.tcp import SEAL_SIZE, Stream
from erps_gevent.wire.pieces import Pieces

HIGH_WATER = 1024 * 1024  # bytes queued, above which writers wait for room
COPIED = 4 * SEAL_SIZE  # bytes up to which a frame in pieces is joined, if it is sent in clear
BATCH = SEAL_SIZE  # bytes joined in one go; what is sealed can no longer be taken back

# One frame in the queue; emptied when it is taken back.
Entry: TypeAlias = "list[bytes | Pieces]"


class Outbox:
    """The way out of one connection.

    stream:       where it goes.
    send_timeout: seconds without a byte taken by the peer, after which the line counts as lost.
    failed:       called once, perhaps in a hub callback, with the error that ended the outbox. Must not park.

    size:   bytes that have not left.
    corked: True holds everything back until `uncork`.
    sign:   what every frame passes through when it leaves, or None.
    error:  why nothing more is taken, or None.

    The loop looks at the clock once a turn, so its time tells one turn from the next. Where it does not (libuv counts
    milliseconds), a frame waits for the end of a turn that it need not have waited for.
    """

    __slots__ = (
        "_batch_due",
        "_begun",
        "_failed",
        "_hub",
        "_in_clear",
        "_now",
        "_patience",
        "_queue",
        "_sealed",
        "_send_timeout",
        "_stream",
        "_turn",
        "_waiting",
        "_watcher",
        "corked",
        "error",
        "sign",
        "size",
    )

    def __init__(self, hub: Hub, stream: Stream, send_timeout: float, failed: Callable[[Exception], Any]) -> None:
        self._hub = hub
        self._now: Callable[[], float] = hub.loop.now
        self._turn = 0.0
        self._stream = stream
        self._in_clear = stream.in_clear
        self._send_timeout = send_timeout
        self._failed = failed
        self._queue: deque[Entry] = deque()
        self._sealed = memoryview(b"")
        self._begun: deque[memoryview] = deque()
        self._batch_due = False
        self._waiting: list[Callable[[], object]] = []
        self._watcher: Any = None
        self._patience: Any = None
        self.size = 0
        self.corked = False
        self.sign: Callable[[bytes | Pieces], bytes] | None = None
        self.error: Exception | None = None

    def write(self, frame: bytes | Pieces) -> Entry | None:
        """Take `frame`; return the entry to `take_back` it by, or None if it has begun to leave.

        frame:  b"" is what the dialect has no packet for: nothing is sent.
        raises: Disconnected  the outbox is closed.
        """
        if self.error is not None:
            raise Disconnected(f"the line is down: {self.error}", reason="disconnected") from self.error
        if not frame:
            return None
        now = self._now()
        if now != self._turn and not (self._queue or self._sealed or self._begun or self.corked):
            self._turn = now
            self._send(frame if self.sign is None else self.sign(frame))
            return None
        entry: Entry = [frame]
        self._queue.append(entry)
        self.size += len(frame)
        if not self._batch_due:
            self._batch_due = True
            self._hub.loop.run_callback(self._end_of_turn)
        return entry

    def take_back(self, entry: Entry | None) -> bool:
        """Drop a frame if no byte of it has been sealed; True if it was dropped, or will never leave."""
        if not entry or not entry[0]:
            return False
        if self.error is None:
            self.size -= len(entry[0])
        entry[0] = b""
        # Else callers that time out while the peer does not read would leave their entries behind.
        while self._queue and not self._queue[-1][0]:
            self._queue.pop()
        while self._queue and not self._queue[0][0]:
            self._queue.popleft()
        self._tell_of_room()
        return True

    def uncork(self, first: bytes) -> None:
        """Send `first`, then what was written while `corked`."""
        self.corked = False
        if self.error is None:
            if first:
                self._queue.appendleft([first])
                self.size += len(first)
            self.flush()

    def empty(self) -> None:
        """Drop what was written while `corked`, and end that."""
        self.corked = False
        self.size -= sum(len(entry[0]) for entry in self._queue)
        self._queue.clear()
        self._tell_of_room()

    def wait_for_room(self, deadline: float | None) -> None:
        """Park while more than HIGH_WATER bytes wait.

        raises: CallTimeout   no room by the deadline; nothing was sent.
                Disconnected  the outbox is closed, or was meanwhile.
        """
        while self.size > HIGH_WATER:
            if deadline is not None and monotonic() >= deadline:
                raise CallTimeout("the peer is not reading: no room to send in time", reason="timeout")
            self._park(deadline)
        if self.error is not None:
            raise Disconnected(f"the line is down: {self.error}", reason="disconnected") from self.error

    def tell(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called in the hub, once, when there is room or less to send, or none ever. Idempotent."""
        if callback not in self._waiting:
            self._waiting.append(callback)

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        self._send_begun()
        while self._queue and not self._sealed and self.error is None and not self.corked:
            self._send(self._next_batch())
        self._tell_of_room()

    def close(self, error: Exception) -> None:
        """Drop everything. What is written from now on raises `error` as the cause of a Disconnected."""
        self.error = self.error or error
        # The entries keep their bytes, by which the callers know that theirs were not sent.
        self._queue.clear()
        self._sealed = memoryview(b"")
        self._begun.clear()
        self.size = 0
        self._stop_watching()
        self._tell_of_room()

    def _park(self, deadline: float | None) -> None:
        waiter: Waiter[Any] = Waiter(self._hub)
        wake = partial(waiter.switch, None)
        self._waiting.append(wake)
        timer = None
        if deadline is not None:
            # libuv has millisecond timers and warns below them.
            timer = self._hub.loop.timer(max(deadline - monotonic(), 0.001))
            timer.start(wake)
        try:
            waiter.get()
        finally:
            if timer is not None:
                timer.close()
            if wake in self._waiting:
                self._waiting.remove(wake)

    def _tell_of_room(self) -> None:
        if self._waiting and self.size <= HIGH_WATER:
            waiting, self._waiting = self._waiting, []
            for wake in waiting:
                self._hub.loop.run_callback(wake)

    def _end_of_turn(self) -> None:
        self._batch_due = False
        if self._queue:
            self.flush()

    def _next_batch(self) -> bytes | Pieces:
        frames: list[bytes | Pieces] = []
        size, queue = 0, self._queue
        while queue:
            entry = queue[0]
            frame = entry[0]
            size += len(frame)
            if size > BATCH and frames:
                # What is large is not copied to have others with it.
                size -= len(frame)
                break
            queue.popleft()
            # One that was taken back is empty.
            if frame:
                frames.append(frame)
                entry[0] = b""
        self.size -= size
        if self.sign is not None:
            frames = [self.sign(frame) for frame in frames]
        # Pieces, which are larger than a batch, come alone.
        return frames[0] if len(frames) == 1 else b"".join(frames)  # type: ignore[arg-type]

    def _send(self, data: Any) -> None:
        """Seal `data` and send as much as the socket takes; the write watcher finishes the rest.

        data: bytes or Pieces, of any size; or a part of what is large, which is a memoryview.
        """
        if len(data) > SEAL_SIZE and not isinstance(data, memoryview):
            self._begin(data)
            return
        try:
            sealed = data if self._in_clear else self._stream.seal(data)
            taken = self._stream.send(sealed)
        except Disconnected as error:
            self._fail(error)
            return
        if taken < len(sealed):
            self._sealed = memoryview(sealed)[taken:]
            self.size += len(self._sealed)
            self._watch()

    def _begin(self, data: bytes | Pieces) -> None:
        """Send a large frame, or several, in parts."""
        size = len(data)
        self.size += size
        whole = data if isinstance(data, Pieces) else Pieces((data,))
        ends: Iterable[int] = ()
        if not self._in_clear:
            ends = range(SEAL_SIZE, size, SEAL_SIZE)
        elif size > COPIED:
            # Its head and its end are small, and leave with some of what is between them.
            ends = (SEAL_SIZE, size - SEAL_SIZE)
        start = 0
        for end in (*ends, size):
            self._begun.append(whole.view(start, end))
            start = end
        self._send_begun()

    def _send_begun(self) -> None:
        """Go on with what is larger than what is sealed in one go."""
        while self._begun and not self._sealed and self.error is None:
            piece = self._begun.popleft()
            self.size -= len(piece)
            self._send(piece)

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = self._hub.loop.io(self._stream.fileno(), 2)
            self._patience = self._hub.loop.timer(self._send_timeout, self._send_timeout)
            self._watcher.start(self._writable)
            self._patience.start(self._out_of_patience)

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._patience.close()
            self._watcher = self._patience = None

    def _writable(self) -> int:
        try:
            taken = self._stream.send(self._sealed)
        except Disconnected as error:
            self._fail(error)
            return 0
        if taken:
            self._patience.again(self._out_of_patience)
        self._sealed = self._sealed[taken:]
        self.size -= taken
        if not self._sealed:
            self._stop_watching()
            self.flush()
        return taken

    def _out_of_patience(self) -> None:
        # It may be this process that was stopped, and not the peer.
        if not self._writable():
            self._fail(Disconnected(f"the peer took nothing for {self._send_timeout:g} s", reason="timeout", sent=True))

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.close(error)
            self._failed(error)
