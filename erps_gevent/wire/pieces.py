"""A long run of bytes that is in several places, and is not copied to have it in one.

What is large leaves as a header and the bytes of the caller, and comes in many reads. A copy of a megabyte takes a
third of the time that the kernel takes to carry it, and memory that is fresh from the kernel takes more than a copy. So
over plain TCP next to nothing is copied of what goes, and of what comes only the value, once, out of slabs that are
used again. TLS, signatures and deflating make copies of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TypeAlias, overload

IN_PIECES = 128 * 1024  # bytes of a value or a packet. Below this size a copy takes less time than to do without.
SLAB = 1024 * 1024  # bytes
# Slabs that are kept for the next large packet, of whatever line: as many as one of the default max_size fills. With
# fresh ones it takes twice the time.
SPARES = 16
# The kernel fills a slab from the start of other pages. If the slab begins with its page, or a little later as memory
# of malloc does, some processors of AMD take four times as long: they mistake addresses that have the same low bits.
OFF_PAGE = 2048  # bytes

Buffer: TypeAlias = "bytes | bytearray | memoryview"

_spare: list[memoryview] = []


class Pieces:
    """The buffers given, as one run of bytes. A part of it, `pieces[start:stop]`, is a copy; `cut` makes none."""

    __slots__ = ("_pieces", "_size", "_slabs")

    def __init__(self, pieces: Sequence[Buffer], slabs: Sequence[memoryview] = ()) -> None:
        self._pieces = pieces
        self._size = sum(map(len, pieces))
        self._slabs = slabs

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...
    def __getitem__(self, at: int | slice) -> int | bytes:
        """raises: IndexError  there is no such byte."""
        if isinstance(at, slice):
            start, stop, _ = at.indices(self._size)
            return b"".join(self._between(start, stop))
        return self[at : at + 1][0]

    def after(self, before: bytes) -> Pieces:
        """`before`, and then these."""
        return Pieces((before, *self._pieces))

    def cut(self, start: int, stop: int) -> Pieces:
        """The bytes from `start` to before `stop`, in the same places."""
        return Pieces(self._between(start, stop), self._slabs)

    def view(self, start: int, stop: int) -> memoryview:
        """The same in one place: a copy only where it is in several."""
        found = self._between(start, stop)
        return memoryview(found[0] if len(found) == 1 else b"".join(found))

    def _between(self, start: int, stop: int) -> list[Buffer]:
        found = []
        for piece in self._pieces:
            size = len(piece)
            if start < size:
                found.append(piece if start <= 0 and size <= stop else memoryview(piece)[max(start, 0) : stop])
            start, stop = start - size, stop - size
            if stop <= 0:
                break
        return found

    def free(self) -> None:
        """Nobody reads this, or what was cut out of it, any more: its slabs may be used again."""
        for slab in self._slabs:
            if len(_spare) < SPARES:
                _spare.append(slab)


class Arrival:
    """A large packet that has begun to come. Memory for it is taken as it comes, and not as it was declared.

    start: what has come, and is kept as it is.
    size:  bytes of the whole packet.

    room:    where what comes next belongs; as much of it as one slab has, and empty when nothing is missing.
    missing: bytes that have not come.
    """

    __slots__ = ("_slabs", "_start", "missing", "room", "size")

    def __init__(self, start: bytes, size: int) -> None:
        self._start = start
        self._slabs: list[memoryview] = []
        self.size = size
        self.missing = size - len(start)
        self.room = memoryview(b"")
        self._more_room()

    def fill(self, chunk: bytes | memoryview) -> bytes:
        """Take what has come, and return what of it is beyond the packet.

        chunk: bytes as they came; or the start of `room`, which they were read into.
        """
        if isinstance(chunk, memoryview):
            self._filled(len(chunk))
            return b""
        at = 0
        while at < len(chunk) and self.missing:
            piece = memoryview(chunk)[at : at + len(self.room)]
            self.room[: len(piece)] = piece
            self._filled(len(piece))
            at += len(piece)
        return chunk[at:]

    def packet(self) -> Pieces:
        """All of it, when nothing is missing."""
        *full, last = self._slabs
        before = len(self._start) + sum(map(len, full))
        return Pieces((self._start, *full, last[: self.size - before]), self._slabs)

    def _filled(self, size: int) -> None:
        self.missing -= size
        self.room = self.room[size:]
        if self.missing and not self.room:
            self._more_room()

    def _more_room(self) -> None:
        slab = _spare_slab()
        self._slabs.append(slab)
        self.room = slab[: self.missing]


def _spare_slab() -> memoryview:
    try:
        return _spare.pop()
    except IndexError:
        # Unlike a bytearray's, no page of it takes memory before something has come for it.
        return memoryview(mmap(-1, OFF_PAGE + SLAB, flags=MAP_PRIVATE | MAP_ANONYMOUS))[OFF_PAGE:]
