"""What is inside the packets of the cbor dialect: one function that makes each payload, one that reads it.

SHAPES is the table; docs/protocol.md explains it. Every reader takes what `terms.decode` made of the payload (None if
it was empty) and raises BadPacket for any other shape, so what it returns needs no further look at its types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

from erps_gevent.errors import BadPacket, EncodeError
from erps_gevent.wire import terms
from erps_gevent.wire.packet import Type
from erps_gevent.wire.refusals import Refusal, fits

SHAPES = {
    Type.CALL: "[ref, value, meta?]",
    Type.CAST: "[null, value, meta?]",
    Type.REPLY: "[ref, value]",
    Type.PUSH: "[null, value, meta?]",
    Type.ERROR: "[ref | null, code, kind, message, data, reason]",
    Type.CANCEL: "ref",
    Type.HELLO: "{abilities, max_size, nonce}",
    Type.WELCOME: "{keepalive, max_pending, max_size, nonce}",
    Type.GOAWAY: "empty, or a map for later use",
    Type.BYE: "empty, or a map for later use",
}

NONCE_SIZE = 16  # bytes
LEAST_SIZE = 1000  # bytes. Whoever takes less could not be told what is wrong.
MOST_SIZE = 2**32 - 1  # bytes, the most that a header can declare
MESSAGE_SIZE = 16 * 1024  # characters of an error's text, bytes of its reason. Enough for a traceback.
KEEPALIVE_RANGE = (0.1, 86400.0)  # seconds. Less is a flood, and what is more no timer has to be able to do.

# A look-up in an Enum takes as long as all the rest of a check.
CALL, REPLY, CAST, PUSH = Type.CALL, Type.REPLY, Type.CAST, Type.PUSH

MAX_REF = 2**63 - 1
_NULL = b"\xf6"
UNASKED = b"\x82\xf6"  # what a cast or a push has before its value
FLOAT = Struct(">d")
TIME_HEAD = b"\xa1\x61t\xfb"  # {"t": a float of 8 bytes
_REF8, _REF16, _REF32, _REF64 = (Struct(code).pack for code in (">BB", ">BH", ">BI", ">BQ"))


class Packet(NamedTuple):
    """What a frame meant. `ref` is None where the type has none."""

    type: Type
    ref: int | None = None
    value: Any = None
    meta: Any = None


# Without the steps that a NamedTuple's own constructor takes.
new_packet: Callable[[tuple[Any, ...]], Packet] = partial(tuple.__new__, Packet)


def ref_item(ref: int) -> bytes:
    """A reference in CBOR, the shortest form: what a cancel is, too."""
    if ref < 24:
        return bytes((ref,))
    if ref < 1 << 8:
        return _REF8(0x18, ref)
    if ref < 1 << 16:
        return _REF16(0x19, ref)
    if ref < 1 << 32:
        return _REF32(0x1A, ref)
    return _REF64(0x1B, ref)


def error(ref: int | None, refusal: Refusal, room: int) -> bytes:
    """About the call `ref`, or about the line if it is None. Texts and reason are cut to what is left of `room`.

    room:   bytes that the peer takes, at least LEAST_SIZE. Only `data` can exceed it.
    raises: EncodeError  `data` cannot be sent, or `kind` or `message` is no text. A reason that cannot is left out.
    """
    code, kind, message, data, reason = refusal
    parts = (
        b"\x86",
        _NULL if ref is None else ref_item(ref),
        terms.encode(int(code)),
        _text(kind, "kind", room // 32),
        _text(message, "message", room // 10),
        terms.encode(data, "data"),
        _optional(reason, room // 64),
    )
    return b"".join(parts)


def _text(value: str, what: str, limit: int) -> bytes:
    if not isinstance(value, str):
        raise EncodeError(f"the {what} of an error is text, not {type(value).__name__}; write str(...) around it")
    # The text of an exception may hold a file name that is no UTF-8. One character becomes six bytes at the most.
    cut = str.__str__(value)[: min(limit, MESSAGE_SIZE)]
    return terms.encode(cut.encode("utf-8", "backslashreplace").decode())


def _optional(reason: Any, limit: int) -> bytes:
    try:
        encoded = terms.encode(reason)
    except EncodeError:
        return _NULL
    return encoded if len(encoded) <= min(limit, MESSAGE_SIZE) else _NULL


def hello(max_size: int, nonce: bytes) -> bytes:
    return terms.encode({"abilities": [], "max_size": max_size, "nonce": nonce})


def welcome(keepalive: float | None, max_pending: int, max_size: int, nonce: bytes) -> bytes:
    body = {"keepalive": keepalive, "max_pending": max_pending, "max_size": max_size, "nonce": nonce}
    return terms.encode(body)


# Readers. Most calls and replies do not come here: see `_usual` of the sessions.


def _read_call(body: Any) -> Packet:
    if type(body) is list and 2 <= len(body) <= 3 and _is_ref(body[0]):
        return Packet(CALL, body[0], body[1], _meta(body) if len(body) == 3 else None)
    raise misshapen(CALL)


def _read_reply(body: Any) -> Packet:
    if type(body) is list and len(body) == 2 and _is_ref(body[0]):
        return Packet(REPLY, body[0], body[1])
    raise misshapen(REPLY)


def _reader_of_unasked(type_: Type) -> Callable[[Any], Packet]:
    def read(body: Any) -> Packet:
        if type(body) is list and 2 <= len(body) <= 3 and body[0] is None:
            return Packet(type_, None, body[1], _meta(body) if len(body) == 3 else None)
        raise misshapen(type_)

    return read


def _read_error(body: Any) -> Packet:
    if type(body) is list and len(body) == 6 and (body[0] is None or _is_ref(body[0])):
        ref, code, kind, message, data, reason = body
        if type(code) is int and type(kind) is str and type(message) is str:
            if not fits(code, ref):
                about = "the line" if ref is None else "a call"
                raise BadPacket(f"the code {code} of an error is for none that is about {about}")
            return Packet(Type.ERROR, ref, Refusal(code, kind, message, data, reason))
    raise misshapen(Type.ERROR)


def _read_cancel(body: Any) -> Packet:
    if _is_ref(body):
        return Packet(Type.CANCEL, body)
    raise misshapen(Type.CANCEL)


def _read_hello(body: Any) -> Packet:
    fields = _handshake(body, Type.HELLO)
    abilities = fields.get("abilities")
    if type(abilities) is not list or any(type(name) is not str for name in abilities):
        raise BadPacket("hello: abilities is a list of names")
    return Packet(Type.HELLO, None, body)


def _read_welcome(body: Any) -> Packet:
    fields = _handshake(body, Type.WELCOME)
    if type(fields.get("max_pending")) is not int or fields["max_pending"] < 1:
        raise BadPacket("welcome: max_pending is a number of calls, at least 1")
    interval = fields.get("keepalive")
    least, most = KEEPALIVE_RANGE
    if interval is not None and not (type(interval) in (int, float) and least <= interval <= most):
        raise BadPacket(f"welcome: keepalive is null, or seconds from {least} to {most:.0f}")
    return Packet(Type.WELCOME, None, body)


def _reader_of_ending(type_: Type) -> Callable[[Any], Packet]:
    def read(body: Any) -> Packet:
        if body is None or type(body) is dict:
            return Packet(type_, None, body or {})
        raise misshapen(type_)

    return read


READERS: dict[int, Callable[[Any], Packet]] = {
    Type.CALL: _read_call,
    Type.CAST: _reader_of_unasked(Type.CAST),
    Type.REPLY: _read_reply,
    Type.PUSH: _reader_of_unasked(Type.PUSH),
    Type.ERROR: _read_error,
    Type.CANCEL: _read_cancel,
    Type.HELLO: _read_hello,
    Type.WELCOME: _read_welcome,
    Type.GOAWAY: _reader_of_ending(Type.GOAWAY),
    Type.BYE: _reader_of_ending(Type.BYE),
}


def misshapen(type_: Type) -> BadPacket:
    """The error for a payload that is not of the shape of its type."""
    return BadPacket(f"a {type_.name.lower()} packet has a payload of the wrong shape: it has to be {SHAPES[type_]}")


def _is_ref(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_REF


def _meta(body: list[Any]) -> dict[Any, Any]:
    meta = body[2]
    if type(meta) is not dict:
        raise BadPacket("the meta of a packet is a map")
    remaining = meta.get("t")
    if remaining is not None and not (type(remaining) is float and remaining >= 0):
        raise BadPacket("the t of meta is the seconds that the caller still waits: a float of at least 0")
    return meta


def _handshake(body: Any, type_: Type) -> Mapping[str, Any]:
    """What hello and welcome have in common, checked."""
    if type(body) is not dict:
        raise misshapen(type_)
    name = type_.name.lower()
    if type(body.get("max_size")) is not int or body["max_size"] < LEAST_SIZE:
        raise BadPacket(f"{name}: max_size is a number of bytes, at least {LEAST_SIZE}")
    if type(body.get("nonce")) is not bytes or len(body["nonce"]) != NONCE_SIZE:
        raise BadPacket(f"{name}: nonce is {NONCE_SIZE} bytes")
    return body
