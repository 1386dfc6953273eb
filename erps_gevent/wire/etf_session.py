"""Both ends of a dialogue with Erps 0.7: its packets only, its payloads, and what it says of a broken rule.

    type         who sends it   payload
    0 keepalive  client         none: nine bytes; never answered
    1 error      server         text; or {term, ref} for a call, which Erps takes and never sends
    2 reply      server         {value, ref}
    3 push       server         value
    4 call       client         {ref, request}
    8 cast       client         value

There is no hello: the dialogue is open at once, and each packet of the client's has its version and identifier, which
are judged each time they change. What a server sends has neither. No packet is cancel, goaway or bye; the verbs of
those are here all the same, say nothing (`b""`), and change the state.

source: lib/erps/packet.ex, client.ex, server.ex (0.7.0)
"""

from __future__ import annotations

from typing import Any

from erps_gevent.errors import BadPacket, EncodeError, SignatureMismatch
from erps_gevent.wire import etf
from erps_gevent.wire.dialogue import KEEPALIVE_PACKET, Moves, Role, Session, State, stays_of
from erps_gevent.wire.etf_types import MAX_DEPTH
from erps_gevent.wire.packet import HEADER_SIZE, Frame, Stamp, Type
from erps_gevent.wire.payloads import CALL, MESSAGE_SIZE, REPLY, Packet
from erps_gevent.wire.refusals import Code, Refusal, fits
from erps_gevent.wire.session import ClientSession, ServerSession

ERPS_SIZE = 64 * 1024 * 1024 - HEADER_SIZE  # bytes. An Erps end stops at the first payload that is larger.
MAX_REF = 2**64  # Erps uses 27 bits of a hash, and takes anything.

_UNSTAMPED = Stamp((0, 0, 0), "")
_PAIR = b"h\x02"  # the head of a tuple of two
_C, _S = Role.CLIENT, Role.SERVER
_REQUESTS = (Type.CALL, Type.CAST, Type.KEEPALIVE)
_ANSWERS = (Type.REPLY, Type.PUSH, Type.ERROR, Type.KEEPALIVE)
_TABLE: dict[tuple[Role, State], Moves] = {
    **{(_C, state): dict.fromkeys(_REQUESTS, state) for state in (State.OPEN, State.LEAVING)},
    **{(_S, state): dict.fromkeys(_ANSWERS, state) for state in (State.OPEN, State.LEAVING, State.CLOSED)},
    (_C, State.CLOSED): {},
}

# The packet's own tuple, and the map of an error, do not count for depth.
_DEPTHS: dict[int, int] = {
    Type.CAST: MAX_DEPTH,
    Type.PUSH: MAX_DEPTH,
    Type.CALL: MAX_DEPTH + 1,
    Type.REPLY: MAX_DEPTH + 1,
    Type.ERROR: MAX_DEPTH + 2,
}
# What Erps says, and the code of it.
_TEXTS: dict[int, str] = {
    Code.IDENTIFIER: "wrong identifier",
    Code.VERSION: "incompatible version",
    Code.SIGNATURE: "authentication provided",
}
# What to do about it; and what an end of ours says, which begins with the name of the error.
_REMEDIES = {
    "wrong identifier": (Code.IDENTIFIER, "give both ends the same identifier, or check the address"),
    "incompatible version": (Code.VERSION, "deploy a version that the server serves, or widen its versions"),
    "authentication provided": (Code.SIGNATURE, "the packet was signed, which this dialect is not; check who sent it"),
}
_CODES = {
    "BadPacket": Code.BAD_PACKET,
    "PacketTooLarge": Code.TOO_LARGE,
    "UnsafeTerm": Code.UNSAFE,
    "BadReturn": Code.BAD_RETURN,
    "Overloaded": Code.OVERLOADED,
    "StartError": Code.START,
    "StartIgnored": Code.IGNORED,
}


class EtfSession(Session):
    """What both ends share; use EtfClientSession or EtfServerSession. The options are those of Session.

    safe: False takes any number of atoms, and integers of any size.
    """

    sends = takes = _TABLE
    stays = stays_of(_TABLE)
    usual = frozenset()
    begins = State.OPEN

    def __init__(self, stamp: Stamp, *args: Any, compressed: bool | int = False, **options: Any) -> None:
        # The bit that says "deflated" is none of Erps: a term says itself that it is compressed.
        super().__init__(stamp, *args, compressed=False, **options)
        self.peer_max_size = min(self.max_size, ERPS_SIZE)
        self.framer.max_size = self.max_size
        self._zip_level = None if compressed is False else -1 if compressed is True else int(compressed)
        self._atoms: dict[bytes, Any] = {}

    def _term(self, value: Any, root: str) -> bytes:
        return etf.term(value, root, self._zip_level is not None, self.safe)

    def _packet(self, type_: Type, root: str, *parts: bytes) -> bytes:
        return bytes(self._frame(type_, etf.payload(parts, self._zip_level), root))

    def _open(self, frame: Frame) -> Packet:
        after = self._takes.get(frame.type)
        if after is None or frame.deflated:
            raise BadPacket(f'{self._misplaced(Type(frame.type))}; do both ends have codec="etf"?')
        if frame.type == KEEPALIVE_PACKET.type:
            return KEEPALIVE_PACKET
        header = frame.header[1:]
        if header != self._peer_header:
            self._check_header(frame)
            self._peer_header = header
        payload = bytes(frame.payload)
        plain = etf.inflated(payload, self.max_size)
        if plain is not payload:
            self.inflated_bytes += len(plain)
        return self._read(Type(frame.type), etf.decode(plain, self.safe, self._atoms, _DEPTHS[frame.type]))

    def _check_header(self, frame: Frame) -> None:
        self._meet(frame)
        if any(frame.hmac_key) or any(frame.signature):
            raise SignatureMismatch(_TEXTS[Code.SIGNATURE])

    def _read(self, type_: Type, term: Any) -> Packet:
        """What a packet means. raises: BadPacket  it is not of the shape of its type."""
        raise NotImplementedError


class EtfClientSession(EtfSession, ClientSession):
    """The client's end."""

    def hello(self) -> bytes:
        return b""

    def call(self, request: Any, remaining: float | None) -> tuple[int, bytes]:
        """A fresh reference and the packet that asks. The server is not told how long the caller waits.

        raises: EncodeError  as for cast. No reference was used.
        """
        value = self._term(request, "request")
        ref = self._last_ref + 1
        frame = self._packet(CALL, "request", _PAIR, etf.term(ref), value)
        self._last_ref = ref
        return ref, frame

    def cast(self, request: Any) -> bytes:
        """raises: EncodeError  it cannot be sent, or is larger than max_size."""
        return self._packet(Type.CAST, "request", self._term(request, "request"))

    def cancel(self, ref: int) -> bytes:
        return b""

    def bye(self) -> bytes:
        self._enter(State.CLOSED)
        return b""

    def _meet(self, frame: Frame) -> None:
        """A server of Erps has nothing in its headers; one that refuses us says itself why."""

    def _read(self, type_: Type, term: Any) -> Packet:
        if type_ is Type.PUSH:
            return Packet(type_, None, term)
        if type(term) is tuple and len(term) == 2 and type(term[1]) is int:
            value, ref = term
            if not 0 < ref <= self._last_ref:
                raise BadPacket(f"the server answers the call {ref}, and the last one was {self._last_ref}")
            return Packet(type_, ref, _refusal_of_term(value) if type_ is Type.ERROR else value)
        if type_ is Type.ERROR and isinstance(term, str):
            self._enter(State.CLOSED)
            return Packet(type_, None, _refusal_of_text(term))
        raise BadPacket(f"a {type_.name.lower()} packet has a payload of the wrong shape: it has to be {{value, ref}}")


class EtfServerSession(EtfSession, ServerSession):
    """The server's end."""

    def __init__(self, stamp: Stamp, *args: Any, **options: Any) -> None:
        super().__init__(stamp, *args, **options)
        self._stamp = _UNSTAMPED
        self._tails = _UNSTAMPED.tails

    def welcome(self, keepalive: float | None, max_pending: int) -> bytes:
        return b""

    def reply(self, ref: int, value: Any) -> bytes:
        """raises: EncodeError  it cannot be sent, or is larger than max_size."""
        return self._packet(REPLY, "reply", _PAIR, self._term(value, "reply"), etf.term(ref))

    def push(self, value: Any) -> bytes:
        """raises: EncodeError  it cannot be sent, or is larger than max_size."""
        return self._packet(Type.PUSH, "message", self._term(value, "message"))

    def refusal(self, ref: int | None, error: Refusal) -> bytes:
        """An error packet: for the call `ref`, whose caller gets `{:error, map}`; or for the line, which is over then.

        raises: EncodeError  `error.data` cannot be sent, or is too large. A reason that cannot is left out.
        """
        if ref is not None:
            return self._packet(Type.ERROR, "data", _PAIR, self._map(error), etf.term(ref))
        text = _TEXTS.get(error.code) or ": ".join(filter(None, (error.kind, error.message)))
        frame = self._packet(Type.ERROR, "message", self._term(_text(text, self.peer_max_size // 10), "message"))
        self._enter(State.CLOSED)
        return frame

    def goaway(self) -> bytes:
        self._enter(State.LEAVING)
        return b""

    def keepalive(self) -> bytes:
        """Nothing: it would crash a client of Erps."""
        return b""

    def _map(self, error: Refusal) -> bytes:
        if not (isinstance(error.kind, str) and isinstance(error.message, str)):
            raise EncodeError("the kind and the message of an error are text; write str(...) around them")
        # No atom of our own but nil: a client of Erps drops a packet that has one which it does not know.
        parts = {
            "code": etf.term(int(error.code)),
            "kind": etf.term(_text(error.kind, self.peer_max_size // 32)),
            "message": etf.term(_text(error.message, self.peer_max_size // 10)),
            "data": self._term(error.data, "data"),
            "reason": self._optional(error.reason),
        }
        head = (b"t", len(parts).to_bytes(4, "big"))
        return b"".join((*head, *(etf.term(name) + part for name, part in parts.items())))

    def _optional(self, reason: Any) -> bytes:
        try:
            encoded = self._term(reason, "reason")
        except EncodeError:
            return self._term(None, "reason")
        return encoded if len(encoded) <= min(self.peer_max_size // 64, MESSAGE_SIZE) else self._term(None, "reason")

    def _read(self, type_: Type, term: Any) -> Packet:
        if type_ is Type.CAST:
            return Packet(type_, None, term)
        if type(term) is tuple and len(term) == 2 and type(term[0]) is int and 0 <= term[0] < MAX_REF:
            return Packet(CALL, *term)
        raise BadPacket("a call packet has a payload of the wrong shape: it has to be {ref, request}")


def _text(text: str, size: int) -> str:
    # The text of an exception may hold a file name that is no UTF-8.
    return str.__str__(text)[: min(size, MESSAGE_SIZE)].encode("utf-8", "backslashreplace").decode()


def _refusal_of_text(text: str) -> Refusal:
    """What an error about the line says: one of the texts of Erps, or "kind: message" of an end of ours."""
    if text in _REMEDIES:
        code, remedy = _REMEDIES[text]
        return Refusal(code, "", f"the server says {text!r}: {remedy}")
    kind, colon, message = text.partition(": ")
    if not (colon and kind.isidentifier()):
        return Refusal(Code.EXIT, "", text)
    return Refusal(_CODES.get(kind, Code.EXIT), kind, message)


def _refusal_of_term(term: Any) -> Refusal:
    """What an error about a call says: the map of an end of ours, or whatever another has put there."""
    if type(term) is dict and type(term.get("code")) is int and fits(term["code"], MAX_REF):
        kind, message = term.get("kind"), term.get("message")
        if type(kind) is str and type(message) is str:
            return Refusal(term["code"], kind, message, term.get("data"), term.get("reason"))
    return Refusal(Code.REPLY, "error", str.__str__(term) if isinstance(term, str) else "", term)
