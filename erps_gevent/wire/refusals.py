"""Error packets: what an error of ours looks like on the wire, and what it becomes at the other end.

    code            about       here                 at the other end
     1 REPLY        a call      ErrorReply           ErrorReply
     2 EXIT         both        any other CallExit   ServerExit
     3 BAD_RETURN   both        BadReturn            BadReturn
     4 OVERLOADED   both        Overloaded           Overloaded
     5 START        the line    StartError           StartError
     6 IGNORED      the line    StartIgnored         StartIgnored
    16 .. 22        the line    a ProtocolError      the same
    others          both        -                    ServerExit

An error about the line ends the dialogue.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from erps_gevent.errors import (
    BadPacket,
    BadReturn,
    CallExit,
    EncodeError,
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
    """What an error packet is about; see the table at the top."""

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
_BY_CODE: dict[int, type[ProtocolError]] = {
    **{code: kind for kind, code in _PROTOCOL.items()},
    Code.PLAINTEXT: BadPacket,
}
_OF_LINES = frozenset({Code.START, Code.IGNORED, *_BY_CODE})
_LONGEST_WAIT = 86400.0  # seconds. More than a day means never, and no timer has to be able to do that.


def fits(code: int, ref: int | None) -> bool:
    """Whether an error with this code may be about the call `ref`, or about the line if it is None."""
    return code not in _OF_LINES if ref is not None else code != Code.REPLY


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
    if isinstance(error, (CallExit, EncodeError)):
        return Refusal(Code.EXIT, kind, message)
    if isinstance(error, StartIgnored):
        return Refusal(Code.IGNORED, kind, message)
    if isinstance(error, ProtocolError):
        return Refusal(_PROTOCOL.get(type(error), Code.BAD_PACKET), kind, message)
    return Refusal(Code.START, kind, message, None, error.reason if isinstance(error, StartError) else None)


def error_of(refusal: Refusal, request: Any = None) -> ErpsError:
    """The error that the peer told us of, to be raised here.

    request: the call that it is about, if it is about one.
    """
    code, kind, message, data, reason = refusal
    if code == Code.REPLY:
        return ErrorReply(kind, message, data)
    if code == Code.OVERLOADED:
        return Overloaded(message, reason="overloaded", request=request, sent=False, retry_after=_seconds(data))
    if code == Code.START:
        return StartError(message, reason=reason)
    if code == Code.IGNORED:
        return StartIgnored(message)
    if code in _BY_CODE:
        return _BY_CODE[code](message)
    cls = BadReturn if code == Code.BAD_RETURN else ServerExit
    text = ": ".join(("the server ended before it answered", *filter(None, (kind, message))))
    return cls(text, reason=reason, request=request, kind=kind, message=message)


def _seconds(data: Any) -> float | None:
    if type(data) in (int, float) and 0 <= data <= _LONGEST_WAIT:
        return float(data)
    return None
