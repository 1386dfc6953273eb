"""Every error that this library raises, in one tree.

A call that cannot be answered raises one of these; it never returns a magic value. Catch the branch that you can
do something about:

    ErpsError
      ConfigError (ValueError)         bad option, missing certificate, no transport
      EncodeError (TypeError)          the value cannot be sent, or is larger than max_size; nothing was sent
      ErrorReply                       the handler refused: .kind .message .data
      CallExit                         the call ended without a reply: .reason .request .sent
        CallTimeout (TimeoutError)     no answer in time; the late one is dropped
        NoProc                         there is no such process
        CallingSelf                    a process called itself and would wait for ever
        ServerExit                     the process ended before it answered: .reason .kind .message
          BadReturn                    it ended because a callback returned what no callback may return
        Disconnected (ConnectionError) the line is down: .sent; the cause is chained
        Overloaded                     refused before it was started; safe to retry: .retry_after
      StartError                       a process did not start: .reason
      AlreadyStarted                   the name is taken: .pid
      AlreadyRegistered                the key is taken: .pid
      StartIgnored                     init returned Ignore()
      MaxChildren                      the supervisor is full
      NotFound                         no such child, or no such entry of a registry
      TaskTimeout (TimeoutError)       a task did not finish in time
      ProtocolError                    the peer broke the rules; the line is closed
        BadPacket                      bytes that are no packet, or a packet that has no place here
        PacketTooLarge                 more bytes than max_size
        UnsafeTerm                     a value that safe mode refuses
        IdentifierMismatch             client and server were given different identifiers
        VersionMismatch                the client's version is outside the server's versions
        SignatureMismatch              the signature of a packet is wrong
    Exit (BaseException)               an exit on its way through a process: .reason

`Disconnected` and `CallTimeout` are OSErrors by inheritance (ConnectionError, TimeoutError), so that code which knows
nothing of this library still catches them. All of these pickle; a fact that cannot, such as a pid or a lambda in a
request, arrives as its `repr`.
"""

from __future__ import annotations

from typing import Any, TypeVar

_E = TypeVar("_E", bound=BaseException)


def _revived(cls: type[_E], args: tuple[Any, ...], facts: dict[str, Any]) -> _E:
    # OSError parses its arguments in __new__, so __init__ with other ones must not run again.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


def _portable(fact: Any) -> Any:
    import pickle  # seldom needed, and half the time that this module takes to load

    try:
        pickle.dumps(fact)
    except Exception:  # noqa: BLE001  whatever a __reduce__ raises, the error itself must arrive
        return repr(fact)
    return fact


class _Pickles:
    """The facts of an error live in its `__dict__`, its sentence in `args`; both survive pickling and copying."""

    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (type(self), self.args, {name: _portable(fact) for name, fact in self.__dict__.items()})

    def __copy__(self) -> Any:
        return _revived(type(self), self.args, self.__dict__)  # type: ignore[type-var]

    def __deepcopy__(self, _memo: object) -> Any:
        return self.__copy__()


class ErpsError(_Pickles, Exception):
    """The root of every error of this library."""


class ConfigError(ErpsError, ValueError):
    """An option is wrong or missing; the text names it and says what to write instead."""


class EncodeError(ErpsError, TypeError):
    """The value cannot be sent, or is larger than the peer takes. Nothing was sent.

    The text has the path to the offending part, such as `request[1]['when']`.
    """


class ErrorReply(ErpsError):
    """Raise it inside `handle_call` to answer with an error; the server lives and the caller has the same one raised.

    kind:    a short name that a program can compare, such as "not_found".
    message: a sentence for a person.
    data:    any value that can be sent.
    """

    def __init__(self, kind: str, message: str = "", data: Any = None) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
        self.message = message
        self.data = data


class CallExit(ErpsError):
    """A call ended without a reply.

    reason:  what OTP would give as the exit reason.
    request: what was asked, where it is known.
    sent:    False means the request was surely not executed; True means it may have been.
    """

    def __init__(self, message: str, *, reason: Any = None, request: Any = None, sent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.request = request
        self.sent = sent


class CallTimeout(CallExit, TimeoutError):
    """No answer came in time. If one comes later it is dropped."""


class NoProc(CallExit):
    """There is no process under this pid or name."""


class CallingSelf(CallExit):
    """A process called itself; it would wait for ever."""


class ServerExit(CallExit):
    """The server process ended before it answered.

    kind:    the type name of the exception that ended it, or the exit reason's name.
    message: the text of that exception; the traceback too if the server set `expose_tracebacks`.
    """

    def __init__(
        self,
        text: str,
        *,
        reason: Any = None,
        request: Any = None,
        sent: bool = True,
        kind: str = "",
        message: str = "",
    ) -> None:
        super().__init__(text, reason=reason, request=request, sent=sent)
        self.kind = kind
        self.message = message


class BadReturn(ServerExit):
    """A callback returned something that is not one of the answers it may give; the process ended."""


class Disconnected(CallExit, ConnectionError):
    """The line is down. `sent` False means the request was surely not executed; `__cause__` is why the line is down."""


class Overloaded(CallExit):
    """Refused before it was started, so it is safe to try again.

    retry_after: seconds to wait before the next try, or None if the peer did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Any = None,
        request: Any = None,
        sent: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, request=request, sent=sent)
        self.retry_after = retry_after


class StartError(ErpsError):
    """A process did not start: its `init` raised, stopped or took too long. `reason` is what it ended with."""

    def __init__(self, message: str, *, reason: Any = None) -> None:
        super().__init__(message)
        self.reason = reason


class AlreadyStarted(ErpsError):
    """The name belongs to a living process, `pid`."""

    def __init__(self, message: str, *, pid: Any = None) -> None:
        super().__init__(message)
        self.pid = pid


class AlreadyRegistered(ErpsError):
    """The key belongs to a living process, `pid`."""

    def __init__(self, message: str, *, pid: Any = None) -> None:
        super().__init__(message)
        self.pid = pid


class StartIgnored(ErpsError):
    """`init` returned `Ignore()`: there is no process, and that is no failure of its own."""


class MaxChildren(ErpsError):
    """The supervisor already has `max_children` children."""


class NotFound(ErpsError):
    """The supervisor has no such child, or the process no such entry in the registry."""


class TaskTimeout(ErpsError, TimeoutError):
    """A task did not finish in time."""


class ProtocolError(ErpsError):
    """The peer broke the rules of the wire; the line is closed."""


class BadPacket(ProtocolError):
    """Bytes that are no packet of this protocol, or a packet that has no place here."""


class PacketTooLarge(ProtocolError):
    """A packet is larger than `max_size`."""


class UnsafeTerm(ProtocolError):
    """The payload holds something that safe mode refuses."""


class IdentifierMismatch(ProtocolError):
    """The client and the server were given different identifiers."""


class VersionMismatch(ProtocolError):
    """The client's version is not among the versions that the server serves."""


class SignatureMismatch(ProtocolError):
    """The signature of a packet is wrong, or there is one where none is expected, or none where one is."""


class Exit(_Pickles, BaseException):
    """An exit on its way through a process, as `exit(reason)` in OTP. Never swallow it."""

    def __init__(self, reason: Any) -> None:
        super().__init__(reason)
        self.reason = reason
