"""Erlang terms that Python has no value for, and the tags and limits of the external term format.

    Erlang                              Python
    nil, true, false                    None, True, False
    any other atom                      Atom, a str
    integer, float                      int, float
    binary of valid UTF-8               str
    any other binary                    bytes; `binary(value)` gives the bytes of either
    a binary of bits, as <<5::3>>       Bitstring
    tuple, list, map                    tuple, list, dict
    improper list, as [1 | 2]           ImproperList
    pid, port, reference, fun           OpaqueTerm: data that goes back as it came
    a list or map in the key of a map   the whole key is an OpaqueTerm, because Python cannot hash it

The limits are those of safe mode, and the same for what is sent. Depth and the size of atoms hold without it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erps_gevent.errors import ConfigError

VERSION = 131  # the first byte of every payload
COMPRESSED = 80

SMALL_INTEGER, INTEGER, SMALL_BIG, LARGE_BIG = 97, 98, 110, 111
OLD_FLOAT, FLOAT = 99, 70
LATIN1_ATOM, SMALL_LATIN1_ATOM, UTF8_ATOM, SMALL_UTF8_ATOM = 100, 115, 118, 119
SMALL_TUPLE, LARGE_TUPLE, NIL, STRING, LIST, MAP = 104, 105, 106, 107, 108, 116
BINARY, BITSTRING = 109, 77
PID, NEW_PID, PORT, NEW_PORT, V4_PORT = 103, 88, 102, 89, 120
REFERENCE, NEW_REFERENCE, NEWER_REFERENCE = 101, 114, 90
EXPORT, FUN = 113, 112

MAX_DEPTH = 64  # tuples, lists and maps inside each other
ATOM_SIZE = 255  # characters, Erlang's own limit
MAX_ATOMS = 4096  # different ones that a peer may use on one line. A bigger API is one whose atoms are data.
MAX_TERMS = 250_000  # in one payload: the worst takes 30 MiB and about a second.
INTEGER_SIZE = 1785  # bytes: 4,299 digits. Python prints no more than 4,300, and a log has to print what came.

ATOM_OF: dict[Any, str] = {None: "nil", True: "true", False: "false"}


class Atom(str):
    """An atom of Erlang's: `Atom("ok")` is sent as `:ok`, while `"ok"` is sent as the string.

    It is the str of its name, and equal to it, so `case ("add", n)` takes a request from either. Atoms that Elixir
    writes with a capital have a prefix in their name: `Atom("Elixir.MyApp.Counter")`. `None`, `True` and `False` are
    the atoms `nil`, `true` and `false`; `Atom("nil")` is sent as the same, and arrives as None.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Atom({str.__repr__(self)})"


@dataclass(frozen=True, slots=True)
class Bitstring:
    """A binary whose last byte is not whole: `Bitstring(b"\\xa0", 3)` is `<<5::3>>`.

    data:   at least one byte; the bits that do not count are 0.
    bits:   how many of the last byte count, from its top: 1 to 7.
    raises: ConfigError  it is none.
    """

    data: bytes
    bits: int

    def __post_init__(self) -> None:
        if not (type(self.data) is bytes and self.data and type(self.bits) is int and 0 < self.bits < 8):
            raise ConfigError("a Bitstring is at least one byte, and 1 to 7 bits of the last; whole bytes are bytes")
        if self.data[-1] & (0xFF >> self.bits):
            raise ConfigError(f"the last byte of a Bitstring has more than {self.bits} bits; set the others to 0")


@dataclass(frozen=True, slots=True)
class ImproperList:
    """A list that does not end in `[]`: `ImproperList((1, 2), 3)` is `[1, 2 | 3]`.

    items:  a tuple of at least one.
    tail:   anything but a list.
    raises: ConfigError  it is none.
    """

    items: tuple[Any, ...]
    tail: Any

    def __post_init__(self) -> None:
        if type(self.items) is not tuple or not self.items or isinstance(self.tail, list):
            raise ConfigError("an ImproperList has a tuple of items and a tail that is no list; others are list")


@dataclass(frozen=True, slots=True)
class OpaqueTerm:
    """A pid, port, reference or function of Erlang's, or a key that Python cannot hash. It can be kept and sent back.

    kind: "pid", "port", "reference", "function", or of a key: "list", "map", "tuple".
    etf:  its bytes, without the version byte in front; equal terms of one node have equal bytes.
    """

    kind: str
    etf: bytes

    def __repr__(self) -> str:
        return f"<{self.kind} of Erlang's, {len(self.etf)} bytes>"


def binary(value: str | bytes) -> bytes:
    """The bytes of what has arrived for a binary, whether they were valid UTF-8 or not.

    raises: TypeError  it is neither str nor bytes, or is an atom.
    """
    if isinstance(value, str) and not isinstance(value, Atom):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"a binary arrives as str or bytes, not as {type(value).__name__}")
