"""The frame: what a packet looks like on the wire.

A packet is that of Erps 0.7, byte for byte:

    offset  size  field
         0     4  magic "erps"
         4     4  payload size, unsigned, big-endian; it does not count the header
         8     1  type, in the low seven bits; bit 0x80: the payload is deflated
         9     3  version of the client's API: major, minor, patch
        12    36  identifier, UTF-8, padded with NUL
        48    16  HMAC key: the key id, padded with NUL; zero where nothing is signed
        64    32  signature; zero where nothing is signed
        96     -  payload

    type         who sends it      deflated  payload
     0 keepalive  client, echoed    no        none: nine bytes in all, nothing follows the type. Signed, a header
     1 error      server            may be    [ref | null, code, kind, message, data, reason]
     2 reply      server            may be    [ref, value]
     3 push       server            may be    [null, value, meta?]
     4 call       client            may be    [ref, value, meta?]
     8 cast       client            may be    [null, value, meta?]
    16 hello      client, first;    no        the session's
                  signing, both
    17 welcome    server, first     no        the session's
    18 goaway     server            no        the session's
    19 cancel     client            no        the session's
    20 bye        client            no        the session's

Types 16 to 20 are this library's own and are not spoken with an Erps 0.7 peer.

Nothing is allocated for a packet before its magic, its type and its size have been judged: a wrong first byte is
refused at once, the rest as soon as nine bytes are there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct

from packaging.version import InvalidVersion, Version

from erps_gevent.errors import BadPacket, ConfigError, PacketTooLarge, ProtocolError
from erps_gevent.wire.pieces import IN_PIECES, Arrival, Pieces

MAGIC = b"erps"
KEEPALIVE = b"erps\0\0\0\0\0"
HEADER_SIZE = 96
DEFLATED = 0x80

_START = Struct(">4sIB")  # magic, payload size, type: the nine bytes that are judged first
_IDENTIFIER_SIZE = 36


class Type(IntEnum):
    """What a packet is for; see the table at the top."""

    KEEPALIVE = 0
    ERROR = 1
    REPLY = 2
    PUSH = 3
    CALL = 4
    CAST = 8
    HELLO = 16
    WELCOME = 17
    GOAWAY = 18
    CANCEL = 19
    BYE = 20


_DEFLATABLE = (Type.ERROR, Type.REPLY, Type.PUSH, Type.CALL, Type.CAST)
_TYPE_BYTES = frozenset({int(kind) for kind in Type} | {kind | DEFLATED for kind in _DEFLATABLE})


def parse_version(text: str) -> tuple[int, int, int]:
    """The three bytes of a version: "1.0.3" is (1, 0, 3); "1" and "1.0" are completed with zeros.

    raises: ConfigError  it is no such version, or one that three bytes cannot carry.
    """
    try:
        version = Version(text)
    except (InvalidVersion, TypeError) as exc:
        raise ConfigError(f'{text!r} is no version: write three numbers, such as version="1.0.3"') from exc
    release = version.release
    if version.is_prerelease or version.is_postrelease or version.local or version.epoch or len(release) > 3:
        raise ConfigError(f'version {text!r} is more than three numbers; write it as version="1.0.3"')
    if max(release) > 255:
        raise ConfigError(f"version {text!r} has a part over 255, which is the most that its byte can carry")
    major, minor, patch = (*release, 0, 0)[:3]
    return major, minor, patch


def check_identifier(text: str) -> str:
    """`text`, if it can be an identifier: at most 36 bytes of UTF-8 without NUL; "" is one too.

    raises: ConfigError  it cannot be.
    """
    if not isinstance(text, str):
        raise ConfigError(f'an identifier is text, not {type(text).__name__}; write identifier="counter"')
    try:
        size = len(text.encode())
    except UnicodeEncodeError as exc:
        raise ConfigError(f"identifier {text!r} is no valid Unicode; write it without surrogates") from exc
    if "\0" in text:
        raise ConfigError(f"identifier {text!r} has a NUL, which pads it on the wire; write it without")
    if size > _IDENTIFIER_SIZE:
        raise ConfigError(f"identifier {text!r} is {size} bytes of UTF-8; shorten it to {_IDENTIFIER_SIZE}")
    return text


@dataclass(frozen=True)
class Stamp:
    """What is the same in every packet that one end sends, worked out once.

    version:    three numbers from 0 to 255, as from `parse_version`.
    identifier: text that `check_identifier` let pass.
    tails:      what a header has after the size, by type byte.
    """

    version: tuple[int, int, int]
    identifier: str
    tails: dict[int, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        constant = bytes(self.version) + self.identifier.encode().ljust(HEADER_SIZE - 12, b"\0")
        tails = {kind: bytes((kind,)) + constant for kind in _TYPE_BYTES if kind != Type.KEEPALIVE}
        object.__setattr__(self, "tails", tails)

    def frame(self, type_byte: int, payload: bytes | Pieces) -> bytes | Pieces:
        """One whole packet around `payload`, which stays in its pieces if it is in some.

        type_byte: a `Type`, with `| DEFLATED` where that is allowed; for a keepalive take the constant KEEPALIVE.
        raises:    KeyError  there is no packet of this type.
        """
        header = (MAGIC, len(payload).to_bytes(4, "big"), self.tails[type_byte])
        if isinstance(payload, Pieces):
            return payload.after(b"".join(header))
        return b"".join((*header, payload))

    def keepalive(self) -> bytes:
        """A keepalive with a whole header, as it is on a line that signs."""
        return KEEPALIVE + self.tails[Type.BYE][1:]


class Frame:
    """One packet as it was received.

    type:     the type byte without the bit for "deflated".
    deflated: whether that bit was set.
    header:   bytes 8 to 95 of the packet, as they were; all zero for a keepalive of nine bytes.
    payload:  the rest, as it was: still deflated if it is. From IN_PIECES bytes on it is left where it is.
    """

    __slots__ = ("deflated", "header", "payload", "type")

    def __init__(self, type: int, deflated: bool, header: bytes, payload: bytes | Pieces) -> None:
        self.type = type
        self.deflated = deflated
        self.header = header
        self.payload = payload

    def __repr__(self) -> str:
        return f"<Frame {Type(self.type).name.lower()} of {len(self.payload)} bytes>"

    @property
    def version(self) -> tuple[int, int, int]:
        return self.header[1], self.header[2], self.header[3]

    @property
    def identifier(self) -> bytes:
        """The identifier without its padding; it is not known to be UTF-8."""
        return self.header[4:40].rstrip(b"\0")

    @property
    def hmac_key(self) -> bytes:
        return self.header[40:56]

    @property
    def signature(self) -> bytes:
        return self.header[56:88]


_KEEPALIVE_FRAME = Frame(Type.KEEPALIVE, False, bytes(HEADER_SIZE - 8), b"")


class Framer:
    """Turns a stream of bytes into packets, wherever the stream is cut.

    max_size: the largest payload taken, in bytes.
    signed:   True takes keepalives with a whole header, and no others.
    error:    why nothing more is read, or None. The packets before the bad one were returned.
    held:     the start of one packet, where the last chunk ended in the middle of it.
    arrival:  the same if it is a large one, else None.
    room:     where to read what comes next into, if that is not to be copied; or None.
    """

    def __init__(self, max_size: int, signed: bool = False) -> None:
        self.max_size = max_size
        self.signed = signed
        self.error: ProtocolError | None = None
        self.held = bytearray()
        self.arrival: Arrival | None = None
        self.room: memoryview | None = None
        self._need = 0  # bytes that `held` must have before another look at it can be of use

    def feed(self, chunk: bytes | memoryview) -> list[Frame]:
        """The packets that `chunk` completes. Look at `error` after them.

        chunk:  bytes as they came; or the start of `room`, which they were read into.
        raises: ProtocolError  `error`, if it was set before this call.
        """
        if self.error is not None:
            raise self.error
        frames: list[Frame] = []
        if self.arrival is not None:
            data = self.arrival.fill(chunk)
            if self.arrival.missing:
                self.room = self.arrival.room
                return frames
            frames.append(_large_frame(self.arrival.packet()))
            self.arrival = self.room = None
        elif self.held:
            self.held += chunk
            if len(self.held) < self._need:
                return frames
            data = bytes(self.held)
            self.held = bytearray()
        else:
            data = bytes(chunk)
        at, size = 0, len(data)
        while size - at >= _START.size:
            magic, payload_size, kind = _START.unpack_from(data, at)
            if magic != MAGIC or kind not in _TYPE_BYTES or payload_size > (kind and self.max_size):
                self.error = self._fault(magic, payload_size, kind)
                return frames
            if not kind and not self.signed:
                frames.append(_KEEPALIVE_FRAME)
                at += _START.size
                continue
            start = at + HEADER_SIZE
            end = start + payload_size
            if end > size:
                self._hold(data[at:], end - at)
                return frames
            if payload_size < IN_PIECES:
                frames.append(Frame(kind & ~DEFLATED, kind >= DEFLATED, data[at + 8 : start], data[start:end]))
            else:
                frames.append(_large_frame(Pieces((memoryview(data)[at:end],))))
            at = end
        if at < size:
            self._hold_start(data[at:])
        return frames

    def continued(self, chunk: bytes) -> bytes:
        """What is held, with `chunk` after it, if another look can be of use: nothing is held then. Else `chunk`."""
        if len(self.held) + len(chunk) < self._need:
            return chunk
        held, self.held = self.held, bytearray()
        return b"".join((held, chunk))

    def eof(self) -> None:
        """Say that the stream has ended.

        raises: ProtocolError  `error` if there is one, else BadPacket if the stream ended inside a packet.
        """
        if self.error is None and self.arrival is not None:
            held, need = self.arrival.size - self.arrival.missing, self.arrival.size
            self.error = BadPacket(f"the stream ended in the middle of a packet: {held} of {need} bytes")
        elif self.error is None and self.held:
            held, need = len(self.held), self._need
            whole = f"{need}" if held >= _START.size else f"at least {_START.size}"
            self.error = BadPacket(f"the stream ended in the middle of a packet: {held} of {whole} bytes")
        if self.error is not None:
            raise self.error

    def _hold(self, rest: bytes, need: int) -> None:
        if need < IN_PIECES:
            self.held = bytearray(rest)
            self._need = need
        else:
            self.arrival = Arrival(rest, need)
            self.room = self.arrival.room

    def _hold_start(self, rest: bytes) -> None:
        if MAGIC.startswith(rest[: len(MAGIC)]):
            self._hold(rest, len(rest) + 1)
        else:
            self.error = _no_packet(rest)

    def _fault(self, magic: bytes, size: int, kind: int) -> ProtocolError:
        if magic != MAGIC:
            return _no_packet(magic)
        if kind not in _TYPE_BYTES:
            return BadPacket(f"there is no packet of type {kind}")
        if not kind:
            return BadPacket(f"a keepalive has no payload, and this one declares {size} bytes")
        return PacketTooLarge(f"a packet declares a payload of {size} bytes, and max_size is {self.max_size}")


def _large_frame(packet: Pieces) -> Frame:
    header = packet[8:HEADER_SIZE]
    return Frame(header[0] & ~DEFLATED, header[0] >= DEFLATED, header, packet.cut(HEADER_SIZE, len(packet)))


def _no_packet(start: bytes) -> BadPacket:
    return BadPacket(f'a packet starts with "erps", and this one with {bytes(start[:4])!r}')
