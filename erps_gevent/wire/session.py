"""One end of one dialogue: bytes in, packets out; values in, bytes out. No I/O, no clock.

The rules are in `wire/dialogue.py`; here is what each end can send, and what it checks of what the other sent.
"""

from __future__ import annotations

from typing import Any

from erps_gevent.errors import BadPacket, IdentifierMismatch, VersionMismatch
from erps_gevent.wire import payloads, terms
from erps_gevent.wire.dialogue import HELLO_SIZE, Role, Session, State
from erps_gevent.wire.packet import Frame, Stamp, Type
from erps_gevent.wire.payloads import (
    CALL,
    CAST,
    FLOAT,
    MAX_REF,
    MOST_SIZE,
    PUSH,
    READERS,
    REPLY,
    TIME_HEAD,
    UNASKED,
    Packet,
    new_packet,
    ref_item,
)
from erps_gevent.wire.pieces import IN_PIECES, Pieces
from erps_gevent.wire.refusals import Code, Refusal
from erps_gevent.wire.signing import UNKNOWN

__all__ = ["ClientSession", "Packet", "ServerSession", "Session", "State"]


class ClientSession(Session):
    """The client's end. Once welcomed, it knows `peer_max_size`, `max_pending` and `keepalive_interval`."""

    role = Role.CLIENT
    peer = Role.SERVER
    usual = frozenset({REPLY, PUSH})

    def __init__(self, stamp: Stamp, **options: Any) -> None:
        super().__init__(stamp, **options)
        self.identifier = stamp.identifier
        self.keepalive_interval: float | None = None
        self.max_pending = 0
        self._last_ref = 0

    def hello(self) -> bytes:
        """The first packet: who we are (in its header), what we can, what we take."""
        return self._control(Type.HELLO, payloads.hello(self.max_size, self.nonce))

    def proof(self) -> bytes:
        """The answer to the hello of a server that signs, that is to the first packet from it: we are here, now."""
        return self._keepalive

    def call(self, request: Any, remaining: float | None) -> tuple[int, bytes | Pieces]:
        """A fresh reference and the packet that asks.

        remaining: seconds that the caller will wait; None for ever.
        raises:    EncodeError  it cannot be sent, or is larger than the server takes. No reference was used.
        """
        if type(request) is bytes and len(request) >= IN_PIECES:
            return self._large_call(request, remaining)
        value = terms.encode(request, "request")
        ref = self._last_ref + 1
        if remaining is None:
            payload = b"".join((b"\x82", ref_item(ref), value))
        else:
            payload = b"".join((b"\x83", ref_item(ref), value, TIME_HEAD, FLOAT.pack(remaining)))
        frame = self._frame(CALL, payload, "request")
        self._last_ref = ref
        return ref, frame

    def _large_call(self, request: bytes, remaining: float | None) -> tuple[int, bytes | Pieces]:
        ref = self._last_ref + 1
        if remaining is None:
            payload = terms.around(b"\x82" + ref_item(ref), request)
        else:
            payload = terms.around(b"\x83" + ref_item(ref), request, TIME_HEAD + FLOAT.pack(remaining))
        frame = self._frame(CALL, payload, "request")
        self._last_ref = ref
        return ref, frame

    def cast(self, request: Any) -> bytes | Pieces:
        if type(request) is bytes and len(request) >= IN_PIECES:
            return self._frame(CAST, terms.around(UNASKED, request), "request")
        return self._frame(CAST, UNASKED + terms.encode(request, "request"), "request")

    def cancel(self, ref: int) -> bytes:
        """Nobody waits for the reply to `ref` any more."""
        return self._control(Type.CANCEL, ref_item(ref))

    def bye(self) -> bytes:
        """The last packet."""
        return self._control(Type.BYE)

    def _open_early(self, frame: Frame, number: int) -> Packet:
        if number or frame.type == Type.ERROR:
            return self._open(frame)
        if frame.type != Type.HELLO:
            raise BadPacket(f"a server that signs says hello first, and this one {Type(frame.type).name.lower()}")
        return READERS[Type.HELLO](terms.decode(frame.payload) if frame.payload else None)

    def _meet(self, frame: Frame) -> None:
        # A server without an identifier of its own serves every client; one that refuses us says itself why.
        theirs = _text(frame.identifier)
        if frame.type == Type.WELCOME and theirs and theirs != self.identifier:
            raise IdentifierMismatch(
                f"this client's identifier is {self.identifier!r} and the server's is {theirs!r}; "
                "give both the same, or check the address"
            )

    def _usual(self, type_: Type, chunk: bytes, start: int, end: int) -> Packet | None:
        if chunk[start] != 0x82:
            return None
        ref, value = terms.decode_pair(chunk[start + 1 : end], self.safe)
        if type_ is PUSH:
            return new_packet((PUSH, None, value, None)) if ref is None else None
        if type(ref) is int and 0 < ref <= self._last_ref:
            return new_packet((REPLY, ref, value, None))
        return None

    def _judged(self, packet: Packet, after: State) -> State:
        ref = packet.ref
        if ref is not None:
            if ref > self._last_ref:
                raise BadPacket(f"the server answers the call {ref}, and the last one was {self._last_ref}")
        elif packet.type is Type.WELCOME:
            limits = packet.value
            self.peer_max_size = min(limits["max_size"], MOST_SIZE)
            self.max_pending = limits["max_pending"]
            self.keepalive_interval = limits.get("keepalive")
        elif packet.type is Type.ERROR:
            return State.CLOSED
        return after


class ServerSession(Session):
    """The server's end. Once it has had a hello, it knows `peer_max_size`.

    versions: what the client's version must be in, as from `parse_versions`; None serves every version.
    """

    role = Role.SERVER
    peer = Role.CLIENT
    usual = frozenset({CALL, CAST})

    def __init__(self, stamp: Stamp, versions: Any = None, **options: Any) -> None:
        super().__init__(stamp, **options)
        self.identifier = stamp.identifier
        self.versions = versions
        self._last_ref = 0
        self.framer.max_size = HELLO_SIZE
        self._hello: Frame | None = None  # that of a client that has not proved yet that it is here

    def hello(self) -> bytes:
        """The answer to the hello of a client that signs, that is to the first packet from it.

        Anybody may have recorded that one, so this has our nonce in it and nothing else to be learnt. The session
        stays fresh until the client has answered.
        """
        return bytes(self._stamp.frame(Type.HELLO, payloads.hello(HELLO_SIZE, self.nonce)))

    def welcome(self, keepalive: float | None, max_pending: int) -> bytes:
        """The line is open: what this end takes.

        keepalive: seconds after which the client should say something, at least 0.1; None leaves that to the client.
        """
        payload = payloads.welcome(keepalive, max_pending, self.max_size, self.nonce)
        return self._control(Type.WELCOME, payload)

    def reply(self, ref: int, value: Any) -> bytes | Pieces:
        """raises: EncodeError  it cannot be sent, or is larger than the client takes."""
        if type(value) is bytes and len(value) >= IN_PIECES:
            return self._frame(REPLY, terms.around(b"\x82" + ref_item(ref), value), "reply")
        payload = b"".join((b"\x82", ref_item(ref), terms.encode(value, "reply")))
        return self._frame(REPLY, payload, "reply")

    def push(self, value: Any) -> bytes | Pieces:
        """raises: EncodeError  it cannot be sent, or is larger than the client takes."""
        if type(value) is bytes and len(value) >= IN_PIECES:
            return self._frame(PUSH, terms.around(UNASKED, value), "message")
        return self._frame(PUSH, UNASKED + terms.encode(value, "message"), "message")

    def refusal(self, ref: int | None, error: Refusal) -> bytes:
        """An error packet: for the call `ref`, or for the whole line if it is None, which ends the dialogue.

        raises: EncodeError  `error.data` cannot be sent, or is too large. A reason that cannot is left out.
        """
        if self._signer is not None and self._signer.stranger and error.code != Code.PLAINTEXT:
            error = Refusal(Code.SIGNATURE, "SignatureMismatch", UNKNOWN)
        frame = bytes(self._frame(Type.ERROR, payloads.error(ref, error, self.peer_max_size), "data"))
        if ref is None:
            self._enter(State.CLOSED)
        return frame

    def goaway(self) -> bytes:
        """Ask the client to leave when it has a line elsewhere. It is served until then."""
        return self._control(Type.GOAWAY)

    def _open_early(self, frame: Frame, number: int) -> Packet:
        if not number:
            if frame.type != Type.HELLO:
                raise BadPacket(self._misplaced(Type(frame.type)))
            self._hello = frame
            return Packet(Type.HELLO)
        if frame.type != Type.KEEPALIVE:
            kind = Type(frame.type).name.lower()
            raise BadPacket(f"a client that signs answers our hello with a keepalive, and this one with a {kind}")
        hello, self._hello = self._hello, None
        assert hello is not None
        return self._open(hello)

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

    def _usual(self, type_: Type, chunk: bytes, start: int, end: int) -> Packet | None:
        meta = None
        if chunk[start] == 0x83:
            if chunk[end - 12 : end - 8] != TIME_HEAD:
                return None
            # The meta is the remaining time, and taking it off is quicker than having it decoded. Had these bytes been
            # the end of something else, what is left would be no pair.
            end -= 12
            meta = {"t": FLOAT.unpack_from(chunk, end + 4)[0]}
            if not meta["t"] >= 0:
                return None
        elif chunk[start] != 0x82:
            return None
        ref, value = terms.decode_pair(chunk[start + 1 : end], self.safe)
        if type_ is CAST:
            return new_packet((CAST, None, value, meta)) if ref is None else None
        if type(ref) is int and self._last_ref < ref <= MAX_REF:
            self._last_ref = ref
            return new_packet((CALL, ref, value, meta))
        return None

    def _judged(self, packet: Packet, after: State) -> State:
        type_, ref, value, _ = packet
        if type_ is CALL:
            assert ref is not None
            if ref <= self._last_ref:
                raise BadPacket(f"the reference {ref} of a call is not above the one before it, {self._last_ref}")
            self._last_ref = ref
        elif type_ is Type.HELLO:
            self.peer_max_size = min(value["max_size"], MOST_SIZE)
            self.framer.max_size = self.max_size
        return after


def _text(identifier: bytes) -> str:
    return identifier.decode("utf-8", "backslashreplace")
