"""What a class statement and a start call may say: options as class keywords, and arguments bound to `init`.

A misspelt or bad option fails where it is written, with the nearest right one; never later, never silently.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from erps_gevent.errors import ConfigError

LONGEST = 1e9  # seconds, 31 years. The clocks of threads and of libuv overflow not far above it.


class Option(NamedTuple):
    """One option: its default, and a check that returns the value to use or raises ConfigError."""

    default: Any
    check: Callable[[str, Any], Any]


def number(low: float, *, none: bool = False) -> Callable[[str, Any], float | None]:
    """A check: a number from `low` to LONGEST; None as well if `none`, for ever."""

    def check(name: str, value: Any) -> float | None:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < float("inf"):
            also = " or None for ever" if none else ""
            raise ConfigError(f"{name} is a number of at least {low:g}{also}, not {value!r}")
        if value > LONGEST:
            also = "; None is for ever" if none else ""
            raise ConfigError(f"{name} is at most {LONGEST:g}, which no timer can exceed, not {value!r}{also}")
        return value

    return check


def count(low: int) -> Callable[[str, Any], int]:
    """A check: a whole number of at least `low`."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ConfigError(f"{name} is a whole number of at least {low}, not {value!r}")
        return value

    return check


def flag(name: str, value: Any) -> bool:
    """A check: True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is True or False, not {value!r}")
    return value


def one_of(*choices: str) -> Callable[[str, Any], str]:
    """A check: one of these words."""

    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise ConfigError(f"{name} is one of {', '.join(map(repr, choices))}, not {value!r}")
        return str(value)

    return check


def checked(given: Mapping[str, Any], known: Mapping[str, Option], where: str) -> dict[str, Any]:
    """Return the options in `given`, each checked.

    where:  who gave them, for the message.
    raises: TypeError    there is no such option; with the nearest one.
            ConfigError  a value is wrong.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{where} has no option {name!r}{did_you_mean(name, known)}")
    return {name: known[name].check(f"{where}: {name}", value) for name, value in given.items()}


def split(given: Mapping[str, Any], known: Mapping[str, Option]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keywords into those that are option names, which are reserved, and the rest, which are for `init`."""
    options = {name: value for name, value in given.items() if name in known}
    return options, {name: value for name, value in given.items() if name not in known}


def bind(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check at once that `args` and `kwargs` fit `cls.init`.

    raises: TypeError  they do not; with the nearest parameter or option.
    """
    signature = inspect.signature(cls.init)  # type: ignore[attr-defined]
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as misfit:
        parameters = list(signature.parameters)[1:]
        strange = [name for name in kwargs if name not in parameters]
        hint = did_you_mean(strange[0], [*parameters, *known]) if strange else ""
        text = f"{cls.__name__}.init({', '.join(parameters)}): {misfit}{hint}"
        raise TypeError(text) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    import difflib  # for mistakes only

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
