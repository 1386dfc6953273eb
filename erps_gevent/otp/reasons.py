"""Exit reasons: why a process ended. Any value may be one; these words have a meaning of their own in OTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class _Reason:
    """An exit reason that is a word; compare with `is` or `==`."""

    __slots__ = ("word",)

    def __init__(self, word: str) -> None:
        self.word = word

    def __repr__(self) -> str:
        return self.word

    def __reduce__(self) -> str:
        return self.word.upper()


NORMAL = _Reason("normal")
SHUTDOWN = _Reason("shutdown")
KILL = _Reason("kill")
KILLED = _Reason("killed")
NOPROC = _Reason("noproc")


@dataclass(frozen=True)
class Shutdown:
    """`{shutdown, Term}`: an ending that is no failure and says why."""

    detail: Any


def is_quiet(reason: object) -> bool:
    """True for the reasons that leave no crash report: normal, shutdown and Shutdown(x)."""
    return reason is NORMAL or reason is SHUTDOWN or isinstance(reason, Shutdown)
