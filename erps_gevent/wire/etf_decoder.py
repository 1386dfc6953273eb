"""The reader of Erlang's external terms: any bytes give a value or a named error, within bounded memory.

Every declared size is compared with the bytes that are left before anything is made for it, and every container counts
its items against MAX_TERMS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from struct import Struct
from typing import Any

from erps_gevent.errors import BadPacket, UnsafeTerm
from erps_gevent.wire import etf_types as tags
from erps_gevent.wire.etf_types import (
    ATOM_SIZE,
    INTEGER_SIZE,
    MAX_ATOMS,
    MAX_DEPTH,
    MAX_TERMS,
    Atom,
    Bitstring,
    ImproperList,
    OpaqueTerm,
)
from erps_gevent.wire.safe import clash

_WORDS = {name: value for value, name in tags.ATOM_OF.items()}
_INT32 = Struct(">i").unpack_from
_DOUBLE = Struct(">d").unpack_from
_OLD_FLOAT = re.compile(rb" *[+-]?[0-9]+\.[0-9]+(e[+-]?[0-9]+)?\0*")
_OLD_FLOAT_SIZE = 31  # bytes
_REFERENCE_WORDS = 5  # numbers of four bytes that a reference has at the most
# Valid in a term, and refused: what it is.
_REFUSED = {
    80: "compression inside a term",
    82: "an atom of a cache that this line does not have",
    117: "a function in the form that OTP 23 has dropped",
    121: "a term that only the node that made it can read",
}


class Decoder:
    """Reads one term. `room`, below, is how many containers may still be opened.

    atoms: the names that the peer has used so far, by tag and bytes; new ones are added.
    """

    __slots__ = ("at", "atoms", "data", "left", "safe", "size")

    def __init__(self, data: bytes, safe: bool, atoms: dict[bytes, Any]) -> None:
        self.data = data
        self.size = len(data)
        self.at = 0
        self.left = MAX_TERMS  # terms that may still come
        self.safe = safe
        self.atoms = atoms

    def whole(self, room: int) -> Any:
        """The one term of the payload, with the version byte in front."""
        first = self._byte()
        if first != tags.VERSION:
            raise BadPacket(f"a term begins with 131, and this payload with {first}; do both ends have codec='etf'?")
        value = self.term(room)
        if self.at != self.size:
            raise BadPacket(f"there are {self.size - self.at} bytes left over after the term")
        return value

    def term(self, room: int) -> Any:
        tag = self._byte()
        reader = _READERS.get(tag)
        if reader is None:
            if tag in _REFUSED:
                raise UnsafeTerm(f"the payload holds {_REFUSED[tag]}, which is refused")
            raise BadPacket(f"there is no term with the tag {tag}")
        return reader(self, room)

    # Bytes.

    def _byte(self) -> int:
        at = self.at
        if at >= self.size:
            raise BadPacket("the term was cut short")
        self.at = at + 1
        return self.data[at]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "big")

    def _bytes(self, size: int) -> bytes:
        return self.data[self._skip(size) : self.at]

    def _skip(self, size: int) -> int:
        """Pass over `size` bytes that are there, and return where they begin."""
        at = self.at
        if size > self.size - at:
            raise BadPacket(f"a part of the term declares {size} bytes, and {self.size - at} are left")
        self.at = at + size
        return at

    def _count(self, count: int) -> int:
        """`count`, if so many terms can still come: each takes a byte at least."""
        if count > self.size - self.at:
            raise BadPacket(f"a container declares {count} terms, and {self.size - self.at} bytes are left")
        self._spend(count)
        return count

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0 and self.safe:
            raise UnsafeTerm(f"the payload has more than {MAX_TERMS} terms; send less at once, or set safe=False here")

    # Data.

    def _small_integer(self, _room: int) -> int:
        return self._byte()

    def _integer(self, _room: int) -> Any:
        return _INT32(self.data, self._skip(4))[0]

    def _big(self, size: int) -> int:
        if self.safe and size > INTEGER_SIZE:
            raise UnsafeTerm(f"an integer has {size} bytes, and safe mode takes {INTEGER_SIZE}")
        sign = self._byte()
        if sign > 1:
            raise BadPacket(f"the sign of an integer is 0 or 1, not {sign}")
        value = int.from_bytes(self._bytes(size), "little")
        return -value if sign else value

    def _float(self, _room: int) -> Any:
        return _finite(_DOUBLE(self.data, self._skip(8))[0])

    def _old_float(self, _room: int) -> Any:
        text = self._bytes(_OLD_FLOAT_SIZE)
        if not _OLD_FLOAT.fullmatch(text):
            raise BadPacket("a float in the old form is no number")
        return _finite(float(text.rstrip(b"\0")))

    def _atom(self, _room: int) -> Any:
        length_size, encoding = _ATOMS[self.data[self.at - 1]]
        raw = self._bytes(self._number(length_size))
        # The same bytes may be two names, by the encoding.
        known = raw if raw.isascii() else encoding.encode() + raw
        if known in self.atoms:
            return self.atoms[known]
        try:
            name = raw.decode(encoding)
        except UnicodeDecodeError as exc:
            raise BadPacket("the name of an atom is no UTF-8") from exc
        if len(name) > ATOM_SIZE:
            raise BadPacket(f"an atom has at most {ATOM_SIZE} characters, and this one {len(name)}")
        if name in _WORDS:
            return _WORDS[name]
        atom = Atom(name)
        if self.safe:
            if len(self.atoms) >= MAX_ATOMS:
                raise UnsafeTerm(f"more than {MAX_ATOMS} different atoms on one line; send data as text, not as atoms")
            self.atoms[known] = atom
        return atom

    def _binary(self, _room: int) -> str | bytes:
        return _text_of(self._bytes(self._number(4)))

    def _bitstring(self, _room: int) -> Any:
        size, bits = self._number(4), self._byte()
        raw = self._bytes(size)
        if not raw or not 0 < bits <= 8:
            raise BadPacket(f"a bitstring has 1 to 8 bits in its last byte, not {bits} in {size} bytes")
        if bits == 8:
            return _text_of(raw)
        return Bitstring(raw[:-1] + bytes((raw[-1] & (0xFF00 >> bits) & 0xFF,)), bits)

    # Containers.

    def _string(self, _room: int) -> list[int]:
        numbers = list(self._bytes(self._number(2)))
        self._spend(len(numbers))
        return numbers

    def _list(self, room: int) -> Any:
        items = self._items(self._number(4), room)
        tail = self.term(room - 1)
        if type(tail) is list:
            items += tail
            return items
        if not items:
            raise BadPacket("a list without items has a tail")
        return ImproperList(tuple(items), tail)

    def _map(self, room: int) -> dict[Any, Any]:
        self._open(room)
        count = self._number(4)
        self._count(2 * count)
        keys, values = [], []
        for _ in range(count):
            begins = self.at
            key = self.term(room - 1)
            try:
                hash(key)
            except TypeError:
                key = OpaqueTerm(_kind(key), self.data[begins : self.at])
            keys.append(key)
            values.append(self.term(room - 1))
        reason = clash(keys)
        if reason:
            raise UnsafeTerm(f'a map is refused, because {reason}, as :a and "a", or 1 and 1.0, are one to Python')
        return dict(zip(keys, values, strict=True))

    def _items(self, count: int, room: int) -> Any:
        self._open(room)
        room -= 1
        term = self.term
        return [term(room) for _ in range(self._count(count))]

    def _open(self, room: int) -> None:
        if room <= 0:
            raise UnsafeTerm(f"the term is nested deeper than {MAX_DEPTH}")

    # What can only be kept. Each is read through, so that the limits hold inside.

    def _node(self, _room: int) -> OpaqueTerm:
        """A term that is the name of a node and some bytes."""
        begins = self.at - 1
        kind, size = _NODES[self.data[begins]]
        self._atom_term()
        self._skip(size)
        return OpaqueTerm(kind, self.data[begins : self.at])

    def _reference(self, creation_size: int) -> OpaqueTerm:
        begins = self.at - 1
        words = self._number(2)
        if not 0 < words <= _REFERENCE_WORDS:
            raise BadPacket(f"a reference has 1 to {_REFERENCE_WORDS} numbers, not {words}")
        self._atom_term()
        self._skip(creation_size + 4 * words)
        return OpaqueTerm("reference", self.data[begins : self.at])

    def _export(self, _room: int) -> OpaqueTerm:
        begins = self.at - 1
        self._atom_term()
        self._atom_term()
        if self._byte() != tags.SMALL_INTEGER:
            raise BadPacket("the arity of an exported function is a small integer")
        self._byte()
        return OpaqueTerm("function", self.data[begins : self.at])

    def _fun(self, room: int) -> OpaqueTerm:
        begins = self.at - 1
        ends = self.at + self._number(4)
        self._open(room)
        self._skip(1 + 16 + 4)  # arity, hash of the module, index
        variables = self._number(4)
        self._atom_term()
        self._expect(int, room)  # old index
        self._expect(int, room)  # old hash
        self._expect(OpaqueTerm, room)  # the pid that made it
        for _ in range(self._count(variables)):
            self.term(room - 1)
        if self.at != ends:
            raise BadPacket("a function does not have the size that it declares")
        return OpaqueTerm("function", self.data[begins : self.at])

    def _atom_term(self) -> None:
        tag = self._byte()
        if tag not in _ATOMS:
            raise BadPacket(f"the name of a node, module or function is an atom, not a term of the tag {tag}")
        self._atom(0)

    def _expect(self, kind: type, room: int) -> None:
        if type(self.term(room - 1)) is not kind:
            raise BadPacket("a function has a part of the wrong type")


# Bytes of the length, and encoding.
_ATOMS = {
    tags.LATIN1_ATOM: (2, "latin-1"),
    tags.SMALL_LATIN1_ATOM: (1, "latin-1"),
    tags.UTF8_ATOM: (2, "utf-8"),
    tags.SMALL_UTF8_ATOM: (1, "utf-8"),
}
# What it is, and bytes after the name of its node.
_NODES = {
    tags.PID: ("pid", 9),
    tags.NEW_PID: ("pid", 12),
    tags.PORT: ("port", 5),
    tags.NEW_PORT: ("port", 8),
    tags.V4_PORT: ("port", 12),
    tags.REFERENCE: ("reference", 5),
}
_READERS: dict[int, Callable[[Decoder, int], Any]] = {
    tags.SMALL_INTEGER: Decoder._small_integer,
    tags.INTEGER: Decoder._integer,
    tags.SMALL_BIG: lambda decoder, _: decoder._big(decoder._byte()),
    tags.LARGE_BIG: lambda decoder, _: decoder._big(decoder._number(4)),
    tags.FLOAT: Decoder._float,
    tags.OLD_FLOAT: Decoder._old_float,
    tags.SMALL_TUPLE: lambda decoder, room: tuple(decoder._items(decoder._byte(), room)),
    tags.LARGE_TUPLE: lambda decoder, room: tuple(decoder._items(decoder._number(4), room)),
    tags.NIL: lambda _decoder, _: [],
    tags.STRING: Decoder._string,
    tags.LIST: Decoder._list,
    tags.MAP: Decoder._map,
    tags.BINARY: Decoder._binary,
    tags.BITSTRING: Decoder._bitstring,
    tags.NEW_REFERENCE: lambda decoder, _: decoder._reference(1),
    tags.NEWER_REFERENCE: lambda decoder, _: decoder._reference(4),
    tags.EXPORT: Decoder._export,
    tags.FUN: Decoder._fun,
    **dict.fromkeys(_ATOMS, Decoder._atom),
    **dict.fromkeys(_NODES, Decoder._node),
}


def _text_of(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _finite(value: float) -> float:
    if not isfinite(value):
        raise BadPacket(f"Erlang has no float for {value!r}")
    return value


def _kind(key: Any) -> str:
    return "map" if type(key) is dict else "tuple" if type(key) is tuple else "list"
