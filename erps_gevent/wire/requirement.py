"""Which versions of a client a server serves: Elixir's requirements, and the specifiers of `packaging`.

    Elixir      ~> 1.0 and < 2.0.0 or == 3.1.0      ~> >= > <= < == !=, and, or; versions of three numbers
    packaging   ~=1.0,<2                            ~= >= > <= < == !=, and a comma for "and"

One rule tells them apart: what is a requirement to Elixir is one here, and everything else is a specifier. The only
strings that are both are plain comparisons, which mean the same in both but for what comes after three numbers: to
Elixir `1.0.0-1` is a pre-release.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet

from erps_gevent.errors import ConfigError

_LONGEST = 255  # characters of one version
_NUMBER = r"(0|[1-9]\d*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}(?:\.{_NUMBER})?(?:-([\dA-Za-z-]+(?:\.[\dA-Za-z-]+)*))?(?:\+[\dA-Za-z-]+(?:\.[\dA-Za-z-]+)*)?",
    re.ASCII,
)
_JOINER = re.compile(r" (and|or) ")
_CLAUSE = re.compile(r"\s*(~>|>=|<=|==|!=|>|<|!|)\s*(.*?)\s*", re.ASCII | re.DOTALL)
_ELIXIR_ONLY = re.compile(r"~>| and | or ")

# What versions are compared by: three numbers, whether it is no pre-release, and the parts of the pre-release, of which
# a number is below any word.
_Key: TypeAlias = "tuple[int, int, int, bool, tuple[tuple[bool, int | str], ...]]"
_Test: TypeAlias = "Callable[[_Key], bool]"

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "!": operator.ne,
    "": operator.eq,
}


class Requirement:
    """A requirement as Elixir's `Version.match?/2` reads it, pre-releases allowed.

    text:   `and` and `or` bind alike, from left to right, as they do there.
    raises: ConfigError  it is none; the text names the part that is wrong.
    source: Version.parse_requirement/1, Elixir 1.14
    """

    def __init__(self, text: str) -> None:
        self.text = text
        first, *rest = _JOINER.split(text)
        self._first = _clause(first, text)
        self._rest = [(joiner, _clause(part, text)) for joiner, part in zip(rest[::2], rest[1::2], strict=True)]

    def contains(self, version: str) -> bool:
        """Whether `version`, "1.0.3" or "1.0.3-rc.1", is one of those.

        raises: ValueError  it is no version of three numbers.
        """
        key = _key(version, 3)
        if key is None:
            raise ValueError(f"{version!r} is no version of three numbers")
        met = self._first(key)
        for joiner, test in self._rest:
            met = met and test(key) if joiner == "and" else met or test(key)
        return met

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Requirement {self.text!r}>"


def parse_versions(text: str) -> Requirement | SpecifierSet:
    """What `versions=` takes; `.contains("1.0.3")` tells whether a version is served.

    raises: ConfigError  it is neither; the text names the part that is wrong.
    """
    try:
        return Requirement(text)
    except ConfigError:
        if _ELIXIR_ONLY.search(text):
            raise
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            Specifier(part)
        except InvalidSpecifier:
            which = f"{text!r}" if part == text else f"{part!r} in {text!r}"
            raise ConfigError(f"{which} is no version specifier: write '~=1.0', '>=1.2,<2' or '~> 1.0'") from None
    return SpecifierSet(text)


def _clause(part: str, text: str) -> _Test:
    """The test that one comparison stands for."""
    match = _CLAUSE.fullmatch(part)
    assert match is not None, "the expression takes any text"
    sign, version = match.groups()
    key = _key(version, 2 if sign == "~>" else 3)
    if key is not None:
        if sign == "~>":
            return _about(key, of_two=version.split("-")[0].split("+")[0].count(".") == 1)
        compare = _COMPARE[sign]
        return lambda found: compare(found, key)
    which = f"{part.strip()!r}" if part == text else f"{part.strip()!r} in {text!r}"
    if not version:
        raise ConfigError(f"{which} has no version: write a comparison such as '>= 1.0.0' on each side of and, or")
    if "," in version:
        raise ConfigError(f"{which} has a comma: write and, as in '~> 1.0 and < 1.5.0'")
    numbers = "two or three numbers, as in '~> 1.0'" if sign == "~>" else f"three numbers, as in '{sign or '=='} 1.0.0'"
    raise ConfigError(f"{which}: {version!r} is no version of {numbers}")


def _about(low: _Key, *, of_two: bool) -> _Test:
    """`~>`: the last number but one stays, and no pre-release of the next one is in."""
    major, minor, *_ = low
    high: _Key = (major + 1, 0, 0, False, ((False, 0),)) if of_two else (major, minor + 1, 0, False, ((False, 0),))
    return lambda found: low <= found < high


def _key(version: str, least: int) -> _Key | None:
    """What `version` is compared by; None if it is none of at least `least` numbers."""
    # Python does not read numbers of any length.
    match = _VERSION.fullmatch(version) if len(version) <= _LONGEST else None
    if match is None or (least == 3 and match[3] is None):
        return None
    parts = match[4].split(".") if match[4] else []
    if any(part.isdigit() and part[0] == "0" and part != "0" for part in parts):
        return None
    pre = tuple((False, int(part)) if part.isdigit() else (True, part) for part in parts)
    return int(match[1]), int(match[2]), int(match[3] or 0), not pre, pre
