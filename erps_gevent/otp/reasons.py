"""Exit reasons: why a process ended. Any value may be one; these words have a meaning of their own in OTP."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, TIMEOUT, Word


@dataclass(frozen=True)
class Shutdown:
    """`{shutdown, Term}`: an ending that is no failure and says why."""

    detail: Any


def is_quiet(reason: object) -> bool:
    """True for the reasons that leave no crash report: normal, shutdown and Shutdown(x)."""
    return reason is NORMAL or reason is SHUTDOWN or isinstance(reason, Shutdown)


def cause_of(reason: Any) -> BaseException | None:
    """The exception in an exit reason, also in that of a supervisor whose child did not start; None if it has none."""
    match reason:
        case BaseException():
            return reason
        case Shutdown(("failed_to_start_child", _, inner)):
            return cause_of(inner)
    return None


_WORDS = {reason.word: reason for reason in (NORMAL, SHUTDOWN, KILL, KILLED, NOPROC, TIMEOUT)}


def to_plain(reason: Any) -> list[Any] | None:
    """An exit reason as plain data, to be sent; None for an exception, whose kind and message are sent instead."""
    if isinstance(reason, BaseException):
        return None
    if isinstance(reason, Word):
        return [reason.word]
    if isinstance(reason, Shutdown):
        return ["shutdown", reason.detail]
    return ["value", reason]


def from_plain(plain: Any) -> Any:
    """The exit reason that `to_plain` made this of; None if it is nothing of the kind."""
    if not isinstance(plain, list):
        return None
    if len(plain) == 1 and isinstance(plain[0], str):
        return _WORDS.get(plain[0])
    if len(plain) == 2:
        return Shutdown(plain[1]) if plain[0] == "shutdown" else plain[1]
    return None


def brief(value: object) -> str:
    """`repr(value)`, cut where it is long: what goes into a log or a message may be 16 MiB of request."""
    return _BRIEF.repr(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxdict = _BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxset = _BRIEF.maxfrozenset = _BRIEF.maxdeque = 20
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 300


def kind_and_message(reason: Any) -> tuple[str, str]:
    """An exit reason as a name to compare and a sentence to read."""
    if isinstance(reason, BaseException):
        return type(reason).__name__, str(reason)
    if isinstance(reason, Word):
        return reason.word, ""
    if isinstance(reason, Shutdown):
        return "shutdown", str(reason.detail)
    return "exit", repr(reason)
