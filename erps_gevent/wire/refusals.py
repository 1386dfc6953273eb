"""Error packets: what an error of ours looks like on the wire, and what it becomes at the other end."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from erps_gevent.errors import (
    BadPacket,
    BadReturn,
    ErpsError,
    ErrorReply,
    IdentifierMismatch,
    Overloaded,
    PacketTooLarge,
    ProtocolError,
    ServerExit,
    SignatureMismatch,
    StartError,
    StartIgnored,
    UnsafeTerm,
    VersionMismatch,
)


class Code(IntEnum):
    """What an error packet is about."""

    REPLY = 1  # ErrorReply: the handler refused
    EXIT = 2  # ServerExit: the process ended
    BAD_RETURN = 3  # BadReturn: it ended because of what a callback returned
    OVERLOADED = 4  # refused before it was started; data: seconds to wait, or null
    START = 5  # init raised or stopped
    IGNORED = 6  # init returned Ignore()
    BAD_PACKET = 16
    TOO_LARGE = 17
    UNSAFE = 18
    IDENTIFIER = 19
    VERSION = 20
    SIGNATURE = 21
    PLAINTEXT = 22  # this port speaks TLS


class Refusal(NamedTuple):
    """The body of an error packet: code, a name to compare, a sentence, and for some codes data and an exit reason."""

    code: int
    kind: str
    message: str
    data: Any = None
    reason: Any = None


_PROTOCOL: dict[type[ProtocolError], Code] = {
    BadPacket: Code.BAD_PACKET,
    PacketTooLarge: Code.TOO_LARGE,
    UnsafeTerm: Code.UNSAFE,
    IdentifierMismatch: Code.IDENTIFIER,
    VersionMismatch: Code.VERSION,
    SignatureMismatch: Code.SIGNATURE,
}
_BY_CODE = {code: kind for kind, code in _PROTOCOL.items()}


def refusal_of(error: ErpsError) -> Refusal:
    """How to tell the peer of `error`, which is about one call or about the whole line."""
    kind, message = type(error).__name__, str(error)
    if isinstance(error, ErrorReply):
        return Refusal(Code.REPLY, error.kind, error.message, error.data)
    if isinstance(error, BadReturn):
        return Refusal(Code.BAD_RETURN, kind, error.message or message)
    if isinstance(error, ServerExit):
        return Refusal(Code.EXIT, error.kind, error.message, None, error.reason)
    if isinstance(error, Overloaded):
        return Refusal(Code.OVERLOADED, kind, message, error.retry_after)
    if isinstance(error, StartIgnored):
        return Refusal(Code.IGNORED, kind, message)
    if isinstance(error, ProtocolError):
        return Refusal(_PROTOCOL.get(type(error), Code.BAD_PACKET), kind, message)
    return Refusal(Code.START, kind, message)


def error_of(refusal: Refusal, request: Any = None) -> ErpsError:
    """The error that the peer told us of, to be raised here.

    request: the call that it is about, if it is about one.
    """
    code, kind, message, data, reason = refusal
    if code == Code.REPLY:
        return ErrorReply(kind, message, data)
    if code == Code.OVERLOADED:
        wait = float(data) if type(data) in (int, float) else None
        return Overloaded(message, reason="overloaded", request=request, sent=False, retry_after=wait)
    if code in (Code.EXIT, Code.BAD_RETURN):
        cls = BadReturn if code == Code.BAD_RETURN else ServerExit
        text = f"the server ended before it answered: {kind}: {message}" if message else f"the server ended: {kind}"
        return cls(text, reason=reason, request=request, kind=kind, message=message)
    if code == Code.IGNORED:
        return StartIgnored(message)
    if code in _BY_CODE:
        return _BY_CODE[Code(code)](message)
    if code == Code.PLAINTEXT:
        return BadPacket(message)
    return StartError(message, reason=reason)
