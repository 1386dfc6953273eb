"""Why a value cannot be sent, and where in it the reason is."""

from __future__ import annotations

from typing import Any

LONGEST_PATH = 12  # steps shown; of a longer one, as many in the middle are left out


class Unsendable(Exception):
    """Why a value cannot be sent. The way to it grows from the inside out while the walk unwinds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[Any] = []

    def text(self, root: str) -> str:
        """The sentence of the EncodeError; root: the word for the whole value, as in `request[1]['when']`."""
        way = [f"[{part}]" for part in reversed(self.path)]
        if len(way) > LONGEST_PATH:
            way[LONGEST_PATH // 2 : -(LONGEST_PATH // 2)] = ["..."]
        return f"cannot send {root + ''.join(way)}: {self.reason}"


def name_of(cls: type) -> str:
    """What to call a type in an error's text."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
