"""Python values to Erlang's external term format and back; the table of types is in `wire/etf_types.py`.

Both ways are written here, and not with a library, because every tag, length and depth has to be judged before a
decoder meets it, and that is a decoder. `erlang-py` is what the tests compare it with.

Encoding gives the bytes of `term_to_binary` of OTP 25, which Erps 0.7 runs on: lists of bytes as STRING_EXT, atoms of
Latin-1 in the old form, or all atoms in the new one where the payload may be compressed.

source: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from math import isfinite
from reprlib import repr as shortened
from struct import Struct
from typing import Any

from erps_gevent.errors import BadPacket, EncodeError, PacketTooLarge
from erps_gevent.wire.etf_decoder import Decoder
from erps_gevent.wire.etf_types import (
    ATOM_OF,
    ATOM_SIZE,
    BINARY,
    BITSTRING,
    COMPRESSED,
    FLOAT,
    INTEGER,
    INTEGER_SIZE,
    LARGE_BIG,
    LARGE_TUPLE,
    LATIN1_ATOM,
    LIST,
    MAP,
    MAX_DEPTH,
    NIL,
    SMALL_BIG,
    SMALL_INTEGER,
    SMALL_TUPLE,
    SMALL_UTF8_ATOM,
    STRING,
    UTF8_ATOM,
    VERSION,
    Atom,
    Bitstring,
    ImproperList,
    OpaqueTerm,
)
from erps_gevent.wire.unsendable import Unsendable, name_of

_SIZE8, _SIZE16, _SIZE32 = (Struct(code).pack for code in (">BB", ">BH", ">BI"))
_INT32 = Struct(">Bi").pack
_DOUBLE = Struct(">Bd").pack
_START = bytes((VERSION,))
_ZIPPED = bytes((VERSION, COMPRESSED))
_ZIPPED_HEAD = 6  # bytes: version, tag, size
_STRING_SIZE = 0xFFFF  # items of a list that may be a STRING_EXT
_just_int = frozenset({int}).issuperset

# Encoding


def encode(value: Any, root: str = "value", *, level: int | None = None, safe: bool = True) -> bytes:
    """The payload that is one term.

    root:   the word for the value in an error's text: `request[1]['when']`.
    level:  of zlib, 0 to 9, or -1 for its own; None compresses nothing.
    safe:   False sends integers of any size.
    raises: EncodeError  it has a part that does not travel, is nested too deep, or contains itself.
    """
    return payload((term(value, root, level is not None, safe),), level)


def payload(parts: Iterable[bytes], level: int | None) -> bytes:
    """The payload of one term whose bytes are `parts`, compressed if that makes it no larger."""
    plain = b"".join((_START, *parts))
    if level is not None:
        squeezed = zlib.compress(plain[1:], level)
        if len(squeezed) + _ZIPPED_HEAD <= len(plain):
            return b"".join((_ZIPPED, (len(plain) - 1).to_bytes(4, "big"), squeezed))
    return plain


def term(value: Any, root: str = "value", utf8_atoms: bool = False, safe: bool = True) -> bytes:
    """The bytes of one term, without the version byte in front. Arguments and errors as for `encode`."""
    writer = _Writer(utf8_atoms, safe)
    try:
        writer.write(value, MAX_DEPTH)
    except Unsendable as refusal:
        raise EncodeError(refusal.text(root)) from refusal.__cause__
    except Exception as exc:
        # A subclass of dict or list may do anything while it is read.
        raise EncodeError(Unsendable(f"a part of it failed while it was being read: {exc!r}").text(root)) from exc
    return b"".join(writer.out)


class _Writer:
    """Appends the pieces of a term to `out`. `room` is how many containers may still be opened."""

    __slots__ = ("out", "safe", "utf8_atoms")

    def __init__(self, utf8_atoms: bool, safe: bool) -> None:
        self.out: list[bytes] = []
        self.utf8_atoms = utf8_atoms
        self.safe = safe

    def write(self, value: Any, room: int) -> None:
        writer = _WRITERS.get(type(value))
        if writer is not None:
            writer(self, value, room)
            return
        for cls in type(value).__mro__[1:]:
            if cls in _WRITERS:
                _WRITERS[cls](self, _EXACT[cls](value), room)
                return
        hint = "make data of it that Erlang has, such as text or a map"
        raise Unsendable(f"the type {name_of(type(value))} has no term of Erlang's; {hint}")

    def _word(self, value: bool | None, _room: int) -> None:
        self._atom(ATOM_OF[value], 0)

    def _atom(self, name: str, _room: int) -> None:
        if len(name) > ATOM_SIZE:
            raise Unsendable(f"an atom has at most {ATOM_SIZE} characters, and this one {len(name)}; send it as text")
        if not self.utf8_atoms and _is_latin1(name):
            self.out += _SIZE16(LATIN1_ATOM, len(name)), name.encode("latin-1")
            return
        data = _utf8(name)
        self.out += _SIZE8(SMALL_UTF8_ATOM, len(data)) if len(data) <= 0xFF else _SIZE16(UTF8_ATOM, len(data)), data

    def _integer(self, value: int, _room: int) -> None:
        if 0 <= value <= 0xFF:
            self.out.append(bytes((SMALL_INTEGER, value)))
        elif -0x80000000 <= value <= 0x7FFFFFFF:
            self.out.append(_INT32(INTEGER, value))
        else:
            self._big(value)

    def _big(self, value: int) -> None:
        size = (abs(value).bit_length() + 7) // 8
        if self.safe and size > INTEGER_SIZE:
            raise Unsendable(f"the integer has {size} bytes, and safe mode takes {INTEGER_SIZE}; send it as text")
        head = _SIZE8(SMALL_BIG, size) if size <= 0xFF else _SIZE32(LARGE_BIG, size)
        self.out += head, b"\1" if value < 0 else b"\0", abs(value).to_bytes(size, "little")

    def _float(self, value: float, _room: int) -> None:
        if not isfinite(value):
            raise Unsendable(f"Erlang has no float for {value!r}; send None or an atom instead")
        self.out.append(_DOUBLE(FLOAT, value))

    def _text(self, value: str, _room: int) -> None:
        self._binary(_utf8(value), 0)

    def _binary(self, value: bytes, _room: int) -> None:
        self.out += _SIZE32(BINARY, len(value)), value

    def _bitstring(self, value: Bitstring, _room: int) -> None:
        self.out += _SIZE32(BITSTRING, len(value.data)), bytes((value.bits,)), value.data

    def _opaque(self, value: OpaqueTerm, _room: int) -> None:
        self.out.append(value.etf)

    def _tuple(self, value: tuple[Any, ...], room: int) -> None:
        size = len(value)
        self.out.append(_SIZE8(SMALL_TUPLE, size) if size <= 0xFF else _SIZE32(LARGE_TUPLE, size))
        self._items(value, room)

    def _list(self, value: list[Any], room: int) -> None:
        small = _small_integers(value)
        if small is not None:
            self.out += _SIZE16(STRING, len(small)), small
            return
        if value:
            self.out.append(_SIZE32(LIST, len(value)))
            self._items(value, room)
        self.out.append(bytes((NIL,)))

    def _improper(self, value: ImproperList, room: int) -> None:
        self.out.append(_SIZE32(LIST, len(value.items)))
        self._items((*value.items, value.tail), room)

    def _map(self, value: dict[Any, Any], room: int) -> None:
        self.out.append(_SIZE32(MAP, len(value)))
        room = _inside(room)
        seen = set()
        step: Callable[[Any], str] = shortened
        key = None
        try:
            for key, item in value.items():
                step, begins = _key, len(self.out)
                self.write(key, room)
                step = shortened
                seen.add(b"".join(self.out[begins:]))
                self.write(item, room)
        except Unsendable as refusal:
            refusal.path.append(step(key))
            raise
        if len(seen) < len(value):
            raise Unsendable('two of its keys are the same term, as "a" and b"a" are; leave one out')

    def _items(self, values: tuple[Any, ...] | list[Any], room: int) -> None:
        room = _inside(room)
        write, writers = self.write, _WRITERS
        at = -1
        try:
            for value in values:
                at += 1
                writer = writers.get(type(value))
                if writer is not None:
                    writer(self, value, room)
                else:
                    write(value, room)
        except Unsendable as refusal:
            refusal.path.append(at)
            raise


_WRITERS: dict[type, Callable[[_Writer, Any, int], None]] = {
    type(None): _Writer._word,
    bool: _Writer._word,
    Atom: _Writer._atom,
    int: _Writer._integer,
    float: _Writer._float,
    str: _Writer._text,
    bytes: _Writer._binary,
    bytearray: _Writer._binary,
    memoryview: lambda writer, value, room: writer._binary(value.tobytes(), room),
    tuple: _Writer._tuple,
    list: _Writer._list,
    dict: _Writer._map,
    Bitstring: _Writer._bitstring,
    ImproperList: _Writer._improper,
    OpaqueTerm: _Writer._opaque,
}
# What a value of a subclass is sent as: a namedtuple as a tuple, an IntEnum as an int, a SafeString as a str.
_EXACT: dict[type, Callable[[Any], Any]] = {
    Atom: str.__str__,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda value: memoryview(value).tobytes(),
    bytearray: bytes,
    tuple: tuple,
    list: list,
    dict: dict,
    Bitstring: lambda value: value,
    ImproperList: lambda value: value,
    OpaqueTerm: lambda value: value,
}


def _inside(room: int) -> int:
    if not room:
        raise Unsendable(f"it is nested deeper than {MAX_DEPTH}, or contains itself")
    return room - 1


def _key(key: Any) -> str:
    return f"key {shortened(key)}"


def _is_latin1(text: str) -> bool:
    return text.isascii() or max(text) <= "\xff"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise Unsendable("the text has a lone surrogate, which UTF-8 cannot carry") from exc


def _small_integers(values: list[Any]) -> bytes | None:
    """The items as bytes, if that is what they are: OTP sends such a list, a charlist most often, as a string."""
    if not values or len(values) > _STRING_SIZE or not _just_int(map(type, values)):
        return None
    try:
        return bytes(values)
    except ValueError:
        return None


# Decoding


def inflated(data: bytes, max_size: int) -> bytes:
    """`data`, or what it becomes if it says that it is compressed.

    max_size: bytes that it may become.
    raises:   PacketTooLarge  it is more, or declares more; BadPacket: it is not compressed as it says.
    """
    if not data.startswith(_ZIPPED):
        return data
    declared = int.from_bytes(data[2:_ZIPPED_HEAD], "big")
    if declared >= max_size:
        raise PacketTooLarge(f"a compressed term declares {declared} bytes, and max_size is {max_size}")
    inflater = zlib.decompressobj()
    try:
        # One byte more than declared, or a longer one would pass for it.
        plain = inflater.decompress(data[_ZIPPED_HEAD:], declared + 1)
    except zlib.error as exc:
        raise BadPacket("a term says that it is compressed, and is not") from exc
    if len(plain) != declared or not inflater.eof or inflater.unused_data:
        raise BadPacket(f"a compressed term is not of the {declared} bytes that it declares, or goes on after its end")
    return _START + plain


def decode(data: bytes, safe: bool = True, atoms: dict[bytes, Any] | None = None, depth: int = MAX_DEPTH) -> Any:
    """The value of a payload that was `inflated`: one term and nothing after it.

    safe:   False takes any number of atoms and terms, and integers of any size.
    atoms:  those of this line, by their bytes; new ones are added. None: of this payload alone.
    depth:  how many containers may be inside each other.
    raises: UnsafeTerm  it holds something that is refused, and may be a valid term.
            BadPacket   it is no term, was cut short, or goes on after it.
    """
    return Decoder(data, safe, {} if atoms is None else atoms).whole(depth)
