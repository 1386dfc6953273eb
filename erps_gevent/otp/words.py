"""The words of OTP: values that are only ever themselves, also after copying and pickling. Compare with `is`."""

from __future__ import annotations


class Word:
    """A word; the global of this module that it is pickled as is the same in capitals."""

    __slots__ = ("word",)

    def __init__(self, word: str) -> None:
        self.word = word

    def __repr__(self) -> str:
        return self.word

    def __reduce__(self) -> str:
        return self.word.upper()


# Exit reasons.
NORMAL = Word("normal")
SHUTDOWN = Word("shutdown")
KILL = Word("kill")
KILLED = Word("killed")
NOPROC = Word("noproc")

# A message, and what may come after one.
TIMEOUT = Word("timeout")
HIBERNATE = Word("hibernate")

# What a child is that is between two attempts to start it.
RESTARTING = Word("restarting")

# The default of an argument that may be None.
ABSENT = Word("absent")
