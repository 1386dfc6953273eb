"""Exit reasons: why a process ended. Any value may be one; these words have a meaning of their own in OTP."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, TIMEOUT, Word


@dataclass(frozen=True)
class Shutdown:
    """`{shutdown, Term}`: an ending that is no failure and says why."""

    detail: Any


FAILED_TO_START_CHILD = "failed_to_start_child"  # the detail of a supervisor's Shutdown: (this, id, reason)


def is_quiet(reason: object) -> bool:
    """True for the reasons that leave no crash report: normal, shutdown and Shutdown(x)."""
    return reason is NORMAL or reason is SHUTDOWN or isinstance(reason, Shutdown)


def cause_of(reason: Any) -> BaseException | None:
    """The exception in an exit reason, also in that of a supervisor whose child did not start; None if it has none."""
    if isinstance(reason, BaseException):
        return reason
    detail = reason.detail if isinstance(reason, Shutdown) else None
    # A reason may be anything, also what cannot be compared.
    if type(detail) is tuple and len(detail) == 3 and type(detail[0]) is str and detail[0] == FAILED_TO_START_CHILD:
        return cause_of(detail[2])
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
    return _printed(_BRIEF.repr, value)


def text_of(value: object) -> str:
    """`str(value)`, also of what cannot be printed: whoever waits for a process has to hear of its end all the same."""
    return _printed(str, value)


def _printed(how: Callable[[object], str], value: object) -> str:
    try:
        return how(value)
    except Exception as failure:  # noqa: BLE001  whatever a __str__ or a __repr__ raises
        return f"<{type(value).__name__}, which cannot be printed: {type(failure).__name__}>"


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxdict = _BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxset = _BRIEF.maxfrozenset = _BRIEF.maxdeque = 20
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 300


def kind_and_message(reason: Any) -> tuple[str, str]:
    """An exit reason as a name to compare and a sentence to read."""
    if isinstance(reason, BaseException):
        return type(reason).__name__, text_of(reason)
    if isinstance(reason, Word):
        return reason.word, ""
    if isinstance(reason, Shutdown):
        return "shutdown", text_of(reason.detail)
    return "exit", _printed(repr, reason)


def is_same(one: Any, other: Any) -> bool:
    """Whether two exit reasons are the same; what cannot be compared is itself only."""
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001  whatever an __eq__ raises
        return False
