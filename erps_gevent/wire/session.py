"""One end of one dialogue: bytes in, packets out; values in, bytes out. No I/O, no clock.

Who may send what, and when, is the table RULES. A missing key is the error path: a packet that the peer may not send
now is a BadPacket; one that we may not send now is a bug of ours and raises RuntimeError.

    client                                   server
    FRESH    ── hello ──────────────────▶    FRESH
    GREETING ◀───────────────── welcome ──   GREETING       its process is starting
    OPEN     ── call, cast, cancel ─────▶    OPEN
    OPEN     ◀──── reply, push, error ────   OPEN
    OPEN     ◀────────────────── goaway ──   LEAVING        it still serves what arrives
    LEAVING  ── cancel, bye ────────────▶    CLOSED

`receive` never raises. Packets that came before a broken one are returned, and `error` is set; from then on the
session takes nothing in.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from erps_gevent.errors import (
    BadPacket,
    EncodeError,
    ErpsError,
    IdentifierMismatch,
    PacketTooLarge,
    ProtocolError,
    SignatureMismatch,
    VersionMismatch,
)
from erps_gevent.wire import terms
from erps_gevent.wire.packet import DEFLATED, KEEPALIVE, Frame, Framer, Stamp, Type
from erps_gevent.wire.refusals import Refusal

DEFLATE_ABOVE = 256  # bytes. Below it deflating costs more than it saves.
HELLO_SIZE = 4096  # bytes. Before the peer has said who it is, no packet needs more.
NONCE_SIZE = 16  # bytes
MESSAGE_SIZE = 16 * 1024  # characters of an error's text, bytes of its reason. Enough for a traceback.


class Role(Enum):
    CLIENT = auto()
    SERVER = auto()


class State(Enum):
    FRESH = auto()
    GREETING = auto()
    OPEN = auto()
    LEAVING = auto()
    CLOSED = auto()


class Packet(NamedTuple):
    """What a frame meant. `ref` is None where the type has none."""

    type: Type
    ref: int | None = None
    value: Any = None
    meta: Any = None


_C, _S = Role.CLIENT, Role.SERVER

# (who sends, the sender's or receiver's state before) -> {type: state after}. Both ends walk the same table, each by
# the state it is in itself.
RULES: dict[tuple[Role, State], dict[Type, State]] = {
    (_C, State.FRESH): {Type.HELLO: State.GREETING},
    (_C, State.GREETING): {Type.BYE: State.CLOSED},
    (_C, State.OPEN): {
        Type.CALL: State.OPEN,
        Type.CAST: State.OPEN,
        Type.CANCEL: State.OPEN,
        Type.KEEPALIVE: State.OPEN,
        Type.BYE: State.CLOSED,
    },
    (_C, State.LEAVING): {Type.CANCEL: State.LEAVING, Type.BYE: State.CLOSED},
    (_S, State.FRESH): {Type.ERROR: State.CLOSED},
    (_S, State.GREETING): {Type.WELCOME: State.OPEN, Type.ERROR: State.CLOSED},
    (_S, State.OPEN): {
        Type.REPLY: State.OPEN,
        Type.PUSH: State.OPEN,
        Type.ERROR: State.OPEN,
        Type.KEEPALIVE: State.OPEN,
        Type.GOAWAY: State.LEAVING,
    },
    (_S, State.LEAVING): {
        Type.REPLY: State.LEAVING,
        Type.PUSH: State.LEAVING,
        Type.ERROR: State.LEAVING,
        Type.KEEPALIVE: State.LEAVING,
        Type.GOAWAY: State.LEAVING,
    },
}
# A server that has said goaway still takes what a client sends that has not read it yet.
RECEIVED: dict[tuple[Role, State], dict[Type, State]] = {
    **RULES,
    (_C, State.LEAVING): {**dict.fromkeys(RULES[_C, State.OPEN], State.LEAVING), Type.BYE: State.CLOSED},
    # What crossed our bye on its way is nobody's any more.
    (_S, State.CLOSED): dict.fromkeys(RULES[_S, State.OPEN], State.CLOSED),
}


class Session:
    """What both ends share; use ClientSession or ServerSession.

    stamp:      version and identifier, as every header carries them.
    max_size:   bytes of payload that this end takes, deflated or not.
    compressed: False, True, or a zlib level from 0 to 9.
    safe:       False lets unknown CBOR tags through as `cbor2.CBORTag`.
    """

    role: Role
    peer: Role

    def __init__(
        self, stamp: Stamp, *, max_size: int = 16 * 1024 * 1024, compressed: bool | int = False, safe: bool = True
    ) -> None:
        self.state = State.FRESH
        self.error: ProtocolError | None = None
        self.max_size = max_size
        self.peer_max_size = max_size
        self.safe = safe
        self.nonce = os.urandom(NONCE_SIZE)
        self.received_bytes = 0
        self._stamp = stamp
        self._level = -1 if compressed is True else compressed
        self._framer = Framer(max_size)
        self._peer_header: bytes | None = None

    def receive(self, chunk: bytes) -> list[Packet]:
        """Return the packets that `chunk` completes, in order; set `error` if something after them is wrong.

        chunk: bytes as they came, cut anywhere.
        """
        packets: list[Packet] = []
        self.received_bytes += len(chunk)
        if self.error is not None:
            return packets
        try:
            for frame in self._framer.feed(chunk):
                packets.append(self._open(frame))
        except ProtocolError as error:
            self.error = error
        else:
            self.error = self._framer.error
        return packets

    def eof(self) -> ProtocolError | None:
        """What is wrong with the stream ending here, if anything: bytes of an unfinished packet are left."""
        try:
            self._framer.eof()
        except ProtocolError as error:
            return self.error or error
        return self.error

    def keepalive(self) -> bytes:
        self._sending(Type.KEEPALIVE)
        return KEEPALIVE

    def _open(self, frame: Frame) -> Packet:
        type_ = frame.type
        allowed = RECEIVED.get((self.peer, self.state), {})
        if type_ not in allowed:
            raise BadPacket(f"a {Type(type_).name.lower()} packet has no place here: {self._whereabouts()}")
        if type_ == Type.KEEPALIVE:
            return _KEEPALIVE_PACKET
        self._check_header(frame)
        payload = self._inflated(frame.payload) if frame.deflated else frame.payload
        packet = self._parsed(type_, terms.decode(payload, self.safe) if payload else None)
        self.state = allowed[Type(type_)]
        return packet

    def _whereabouts(self) -> str:
        return f"the {self.peer.name.lower()} sent it and the dialogue is {self.state.name.lower()}"

    def _check_header(self, frame: Frame) -> None:
        """The first packet says who the peer is; all others must say the same."""
        header = frame.header[1:]
        if header == self._peer_header:
            return
        if any(frame.hmac_key) or any(frame.signature):
            raise SignatureMismatch("the packet is signed and this end was given no keys; take signing= off the peer")
        if self._peer_header is not None:
            raise BadPacket("the version or identifier in a header changed in the middle of the dialogue")
        self._meet(frame)
        self._peer_header = header

    def _meet(self, frame: Frame) -> None:
        raise NotImplementedError

    def _inflated(self, payload: bytes) -> bytes:
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(payload, self.max_size + 1)
        except zlib.error as exc:
            raise BadPacket("a payload says that it is deflated, and is not") from exc
        if len(data) > self.max_size:
            raise PacketTooLarge(f"a deflated payload of {len(payload)} bytes inflates to more than {self.max_size}")
        if not inflater.eof or inflater.unused_data:
            raise BadPacket("a deflated payload is cut short, or has bytes after its end")
        return data

    def _parsed(self, type_: int, body: Any) -> Packet:
        raise NotImplementedError

    def _sending(self, type_: Type) -> None:
        try:
            self.state = RULES[self.role, self.state][type_]
        except KeyError:
            raise RuntimeError(f"cannot send {type_.name} while {self.state.name}") from None

    def _frame(self, type_: Type, payload: bytes, root: str = "value") -> bytes:
        """One packet, after the state table agreed. The state moves only when the packet can be sent."""
        if len(payload) > DEFLATE_ABOVE and self._level is not False:
            deflated = zlib.compress(payload, self._level)
            if len(deflated) < len(payload):
                self._check_size(len(payload), root)
                self._sending(type_)
                return self._stamp.frame(type_ | DEFLATED, deflated)
        if len(payload) > self.peer_max_size:
            self._check_size(len(payload), root)
        self._sending(type_)
        return self._stamp.frame(type_, payload)

    def _check_size(self, size: int, root: str) -> None:
        if size > self.peer_max_size:
            text = f"{root} takes {size} bytes and the peer takes {self.peer_max_size} (max_size); send less at once"
            raise EncodeError(text)


class ClientSession(Session):
    """The client's end."""

    role = Role.CLIENT
    peer = Role.SERVER

    def __init__(self, stamp: Stamp, **options: Any) -> None:
        super().__init__(stamp, **options)
        self._refs = itertools.count(1)
        self.identifier = stamp.identifier
        self.keepalive_interval: float | None = None
        self.max_pending = 0

    def hello(self) -> bytes:
        """The first packet: who we are (in its header), what we can, what we take."""
        body = {"abilities": [], "max_size": self.max_size, "nonce": self.nonce}
        return self._frame(Type.HELLO, terms.encode(body))

    def call(self, request: Any, remaining: float | None) -> tuple[int, bytes]:
        """A fresh reference and the packet that asks.

        remaining: seconds that the caller will wait; None for ever.
        raises:    EncodeError  it cannot be sent, or is larger than the peer takes.
        """
        value = terms.encode(request, "request")
        ref = next(self._refs)
        return ref, self._frame(Type.CALL, _envelope(ref, value, _meta(remaining)), "request")

    def cast(self, request: Any) -> bytes:
        return self._frame(Type.CAST, _envelope(None, terms.encode(request, "request")), "request")

    def cancel(self, ref: int) -> bytes:
        return self._frame(Type.CANCEL, _head(0, ref))

    def bye(self) -> bytes:
        return self._frame(Type.BYE, b"")

    def _meet(self, frame: Frame) -> None:
        # A server without an identifier of its own serves every client.
        theirs = _text(frame.identifier)
        if frame.type == Type.WELCOME and theirs and theirs != self.identifier:
            raise IdentifierMismatch(
                f"this client's identifier is {self.identifier!r} and the server's is {theirs!r}; "
                "give both the same, or check the address"
            )

    def _parsed(self, type_: int, body: Any) -> Packet:
        if type_ == Type.REPLY:
            if type(body) is list and len(body) == 2 and _is_ref(body[0]):
                return Packet(Type.REPLY, body[0], body[1])
        elif type_ == Type.PUSH:
            if type(body) is list and len(body) in (2, 3) and body[0] is None:
                return Packet(Type.PUSH, None, body[1], body[2] if len(body) == 3 else None)
        elif type_ == Type.ERROR:
            if type(body) is list and len(body) == 6 and (body[0] is None or _is_ref(body[0])) and _is_error(body):
                return Packet(Type.ERROR, body[0], Refusal(*body[1:]))
        elif type_ == Type.WELCOME:
            return self._welcomed(body)
        elif type_ == Type.GOAWAY and (body is None or isinstance(body, dict)):
            return Packet(Type.GOAWAY, None, body or {})
        raise BadPacket(f"a {Type(type_).name.lower()} packet has a payload of the wrong shape")

    def _welcomed(self, body: Any) -> Packet:
        fields = _fields(body, "welcome", max_size=int, max_pending=int, nonce=bytes)
        interval = body.get("keepalive")
        if interval is not None and not (type(interval) in (int, float) and interval > 0):
            raise BadPacket("welcome: keepalive is neither seconds nor null")
        self.keepalive_interval = interval
        self.peer_max_size = fields["max_size"]
        self.max_pending = fields["max_pending"]
        return Packet(Type.WELCOME, None, body)


class ServerSession(Session):
    """The server's end.

    versions: a `packaging` specifier set that the client's version must be in; None serves every version.
    """

    role = Role.SERVER
    peer = Role.CLIENT

    def __init__(self, stamp: Stamp, versions: Any = None, **options: Any) -> None:
        super().__init__(stamp, **options)
        self.identifier = stamp.identifier
        self.versions = versions
        self._last_ref = 0
        self._framer.max_size = min(self.max_size, HELLO_SIZE)

    def welcome(self, keepalive: float | None, max_pending: int) -> bytes:
        """The line is open: what this end takes.

        keepalive: seconds after which the client should say something; None leaves that to the client.
        """
        body = {"keepalive": keepalive, "max_pending": max_pending, "max_size": self.max_size, "nonce": self.nonce}
        return self._frame(Type.WELCOME, terms.encode(body))

    def reply(self, ref: int, value: Any) -> bytes:
        return self._frame(Type.REPLY, _envelope(ref, terms.encode(value, "reply")), "reply")

    def push(self, value: Any) -> bytes:
        return self._frame(Type.PUSH, _envelope(None, terms.encode(value, "message")), "message")

    def refusal(self, ref: int | None, error: Refusal) -> bytes:
        """An error packet: for the call `ref`, or for the whole line if it is None.

        raises: EncodeError  `error.data` cannot be sent, or is too large. A reason that cannot is left out.
        """
        data = terms.encode(error.data, "data")
        head = b"\x86" + (_NULL if ref is None else _head(0, ref))
        words = terms.encode(int(error.code)) + terms.encode(error.kind) + terms.encode(error.message[:MESSAGE_SIZE])
        return self._frame(Type.ERROR, head + words + data + _sendable(error.reason), "data")

    def goaway(self) -> bytes:
        return self._frame(Type.GOAWAY, b"")

    def _meet(self, frame: Frame) -> None:
        theirs = _text(frame.identifier)
        if self.identifier and theirs != self.identifier:
            raise IdentifierMismatch(
                f"the client's identifier is {theirs!r} and this server's is {self.identifier!r}; "
                "give both the same, or check the address"
            )
        version = ".".join(map(str, frame.version))
        if self.versions is not None and not self.versions.contains(version):
            raise VersionMismatch(
                f"the client's version is {version} and this server serves {self.versions}; "
                "deploy a client of a served version, or widen versions="
            )

    def _parsed(self, type_: int, body: Any) -> Packet:
        if type_ == Type.CALL:
            if type(body) is list and 2 <= len(body) <= 3 and _is_ref(body[0]):
                return self._called(body)
        elif type_ == Type.CAST:
            if type(body) is list and 2 <= len(body) <= 3 and body[0] is None:
                return Packet(Type.CAST, None, body[1], body[2] if len(body) == 3 else None)
        elif type_ == Type.CANCEL:
            if _is_ref(body):
                return Packet(Type.CANCEL, body)
        elif type_ == Type.HELLO:
            fields = _fields(body, "hello", max_size=int, nonce=bytes)
            self.peer_max_size = fields["max_size"]
            self._framer.max_size = self.max_size
            return Packet(Type.HELLO, None, body)
        elif type_ == Type.BYE and body is None:
            return Packet(Type.BYE)
        raise BadPacket(f"a {Type(type_).name.lower()} packet has a payload of the wrong shape")

    def _called(self, body: list[Any]) -> Packet:
        ref = body[0]
        if ref <= self._last_ref:
            raise BadPacket(f"the reference {ref} of a call is not larger than the one before it, {self._last_ref}")
        self._last_ref = ref
        meta = body[2] if len(body) == 3 else None
        if meta is not None and not isinstance(meta, dict):
            raise BadPacket("the meta of a call is no map")
        return Packet(Type.CALL, ref, body[1], meta)


_KEEPALIVE_PACKET = Packet(Type.KEEPALIVE)
_NULL = b"\xf6"
_FLOAT = struct.Struct(">d").pack
_REMAINING = b"\xa1\x61t\xfb"  # {"t": a float of 8 bytes
_MAX_REF = 2**63 - 1


def _envelope(ref: int | None, value: bytes, meta: bytes = b"") -> bytes:
    head = b"\x83" if meta else b"\x82"
    return head + (_NULL if ref is None else _head(0, ref)) + value + meta


def _head(major: int, number: int) -> bytes:
    """The head of a CBOR item: major type and argument."""
    if number < 24:
        return bytes((major | number,))
    if number < 0x100:
        return bytes((major | 24, number))
    if number < 0x10000:
        return bytes((major | 25,)) + number.to_bytes(2, "big")
    if number < 0x100000000:
        return bytes((major | 26,)) + number.to_bytes(4, "big")
    return bytes((major | 27,)) + number.to_bytes(8, "big")


def _meta(remaining: float | None) -> bytes:
    return b"" if remaining is None else _REMAINING + _FLOAT(remaining)


def _text(identifier: bytes) -> str:
    return identifier.decode("utf-8", "backslashreplace")


def _is_ref(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_REF


def _is_error(body: list[Any]) -> bool:
    return type(body[1]) is int and type(body[2]) is str and type(body[3]) is str


def _fields(body: Any, what: str, **kinds: type) -> Mapping[str, Any]:
    if not isinstance(body, dict) or any(type(body.get(name)) is not kind for name, kind in kinds.items()):
        raise BadPacket(f"{what}: it has to be a map with {', '.join(kinds)}")
    return body


def _sendable(reason: Any) -> bytes:
    try:
        encoded = terms.encode(reason)
    except ErpsError:
        return _NULL
    return encoded if len(encoded) <= MESSAGE_SIZE else _NULL
