"""Python values to CBOR and back, with their types.

`wire/types.py` has the table of types, `wire/safe.py` what is refused. Encoding checks every value before cbor2 meets
it: cbor2 6.3 crashes the interpreter on lists nested 20,000 deep.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import SystemRandom
from reprlib import repr as shortened
from typing import Any

from cbor2 import CBORDecodeError, CBORTag, dumps, loads

from erps_gevent.errors import BadPacket, EncodeError, ProtocolError, UnsafeTerm
from erps_gevent.wire.pieces import Pieces
from erps_gevent.wire.safe import ATOMS, LEAVES, LENIENT, MAX_DEPTH, NO_DATA, SAFE, Types, clash, judge, refuse_tag
from erps_gevent.wire.types import APPLICATION, DICT, FROZENSET, PACK, REGISTERED, SET, TUPLE, register_type
from erps_gevent.wire.unsendable import Unsendable, name_of
from erps_gevent.wire.weight import MAX_WEIGHT, too_heavy

__all__ = ["decode", "encode", "register_type"]

TOO_HEAVY = (
    f"has too many parts: they weigh more than {MAX_WEIGHT:,}, see docs/protocol.md; send it in several packets, or "
    "many numbers as bytes"
)
LARGE = 4096  # bytes. From this size on a byte string is cut out of the packet instead of passed through cbor2. What
# is shorter cannot be too heavy.

_BUT_TEXT = ATOMS - {str}
_TEXT = frozenset({str, bytes})
_all_atoms = ATOMS.issuperset
_all_text = _TEXT.issuperset
_TUPLE_HEAD = b"\xd8" + bytes((TUPLE,))
_BYTES_HEADS = {0x59: 3, 0x5A: 5, 0x5B: 9}  # first byte of a long byte string: size of its head
_REF_SIZES = {**dict.fromkeys((*range(0x18), 0xF6), 1), 0x18: 2, 0x19: 3, 0x1A: 5, 0x1B: 9}  # the same of a reference
_HEADS = 1 + 9 + 9  # bytes, at the most, of the array, the reference and the byte string, before what is in it
_NOTHING: Types = frozenset()

# Encoding


def encode(value: Any, root: str = "value") -> bytes:
    """The CBOR of one value.

    root:   the word for the value in an error's text: `request[1]['when']`.
    raises: EncodeError  it has a part that does not travel, is nested too deep, contains itself, or has more parts
                         than a peer takes.
    """
    kind = type(value)
    try:
        if kind in ATOMS:
            # One atom has no parts, whatever its size.
            return dumps(value) if kind is not bytes or len(value) < LARGE else _large_head(len(value)) + value
        if kind is tuple and _is_plain(value, MAX_DEPTH - 1):
            encoded = _TUPLE_HEAD + dumps(value)
        elif _is_plain((value,), MAX_DEPTH):
            encoded = dumps(value)
        else:
            encoded = dumps(_sendable(value, MAX_DEPTH, ATOMS))
    except Unsendable as refusal:
        raise EncodeError(refusal.text(root)) from refusal.__cause__
    except Exception as exc:
        raise EncodeError(_fault(value, exc).text(root)) from exc
    if len(encoded) >= LARGE and too_heavy(encoded):
        raise EncodeError(f"{root} {TOO_HEAVY}")
    return encoded


def around(before: bytes, value: bytes, after: bytes = b"") -> Pieces:
    """The CBOR of `value`, at least LARGE bytes, which is not copied, between what is before and after it."""
    return Pieces((before + _large_head(len(value)), value, after))


def _large_head(size: int) -> bytes:
    if size < 1 << 16:
        return b"\x59" + size.to_bytes(2, "big")
    return b"\x5a" + size.to_bytes(4, "big") if size < 1 << 32 else b"\x5b" + size.to_bytes(8, "big")


def _is_plain(values: Collection[Any], room: int) -> bool:
    """Whether cbor2 may meet `values` as they are. True for most messages, and much quicker than making a copy."""
    if _all_atoms(map(type, values)):
        return True
    if not room:
        return False
    for value in values:
        kind = type(value)
        if kind in ATOMS:
            continue
        if kind is list:
            inner = value
        elif kind is dict and _all_text(map(type, value)):
            inner = value.values()
        else:
            return False
        if not _is_plain(inner, room - 1):
            return False
    return True


def _fault(value: Any, exc: Exception) -> Unsendable:
    if isinstance(exc, UnicodeEncodeError):
        # cbor2 does not say which text it was. Walk again, with str no atom, so that every text is looked at.
        try:
            _sendable(value, MAX_DEPTH, _BUT_TEXT)
        except Unsendable as refusal:
            return refusal
    return Unsendable(f"a part of it failed while it was being read: {exc!r}")


def _sendable(value: Any, room: int, atoms: Types) -> Any:
    """`value`, or what stands for it, made of only what cbor2 may meet.

    room: how many containers may still be opened.
    """
    if type(value) in atoms:
        return value
    for cls in type(value).__mro__:
        if cls in _OPEN:
            _check_room(room)
            return _OPEN[cls](value, room - 1, atoms)
        if cls in PACK:
            return _packed(PACK[cls], value)
        if cls in REGISTERED:
            entry = REGISTERED[cls]
            _check_room(room)
            return CBORTag(APPLICATION, [entry.name, _sendable(_packed(entry.pack, value), room - 1, atoms)])
    raise Unsendable(f"the type {name_of(type(value))} does not travel; make plain data of it, or see register_type")


def _check_room(room: int) -> None:
    if not room:
        raise Unsendable(f"it is nested deeper than {MAX_DEPTH}, or contains itself")


def _packed(pack: Callable[[Any], Any], value: Any) -> Any:
    try:
        return pack(value)
    except UnicodeEncodeError as exc:
        raise Unsendable("the text has a lone surrogate, which UTF-8 cannot carry") from exc
    except Exception as exc:
        raise Unsendable(f"this value of the type {name_of(type(value))} does not travel: {exc}") from exc


def _items(values: Collection[Any], room: int, atoms: Types) -> Collection[Any]:
    if atoms.issuperset(map(type, values)):
        return values
    out: list[Any] = []
    try:
        for value in values:
            out.append(value if type(value) in atoms else _sendable(value, room, atoms))
    except Unsendable as refusal:
        refusal.path.append(len(out))
        raise
    return out


def _list(value: list[Any], room: int, atoms: Types) -> Any:
    return _items(value if type(value) is list else list(value), room, atoms)


def _tuple(value: tuple[Any, ...], room: int, atoms: Types) -> CBORTag:
    return CBORTag(TUPLE, _items(tuple(value), room, atoms))


def _set(value: Collection[Any], room: int, atoms: Types) -> CBORTag:
    return CBORTag(SET, _keys(list(value), room, atoms, "item"))


def _frozenset(value: Collection[Any], room: int, atoms: Types) -> CBORTag:
    return CBORTag(FROZENSET, _keys(list(value), room, atoms, "item"))


def _keys(keys: list[Any], room: int, atoms: Types, word: str) -> Collection[Any]:
    reason = clash(keys)
    if reason:
        raise Unsendable(f"the peer would refuse it, because {reason}")
    try:
        return _items(keys, room, atoms)
    except Unsendable as refusal:
        refusal.path[-1] = f"{word} {shortened(keys[refusal.path[-1]])}"
        raise


def _dict(value: dict[Any, Any], room: int, atoms: Types) -> Any:
    mapping = value if type(value) is dict else dict(value)
    plain = _all_text(map(type, mapping))
    keys = mapping if plain and str in atoms else _keys(list(mapping), room, atoms, "key")
    try:
        values = _items(mapping.values(), room, atoms)
    except Unsendable as refusal:
        refusal.path[-1] = shortened(list(mapping)[refusal.path[-1]])
        raise
    if plain:
        return dict(zip(keys, values, strict=True))
    flat: list[Any] = [None] * (2 * len(keys))
    flat[::2], flat[1::2] = keys, values
    return CBORTag(DICT, flat)


_OPEN: dict[type, Callable[[Any, int, Types], Any]] = {
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
}

# Decoding


# A container of ours is a tag and an array to cbor2. On top: the array that we add, and a fraction of large numbers,
# which is a tag, an array and a tag.
_CBOR_DEPTH = 2 * MAX_DEPTH + 4
_UNSAFE = ("nesting depth", "indefinite length", "Duplicate map key", "map key must be")  # in cbor2's error texts

# `loads` does not say where the value ended. So it is given an array of the value and this, and what it returns
# second tells. Nobody outside knows it; and each byte of it is a head that no CBOR item has, so that a value that
# was cut short fails in it, the same way each time.
_END = bytes(SystemRandom().choices(b"\x1c\x1d\x1e\x3c\x3d\x3e\x5c\x5d\x5e\x7c\x7d\x7e\x9c\x9d\x9e", k=16))
_END_ITEM = b"\x50" + _END


def decode(payload: bytes | memoryview | Pieces, safe: bool = True) -> Any:
    """The value of `payload`, which is one item of CBOR.

    safe:   False lets tags that are not in the table through, as `cbor2.CBORTag`, simple values, and any number of
            parts.
    raises: UnsafeTerm  it holds something that is refused, and may be valid CBOR.
            BadPacket   it is no CBOR, was cut short, or goes on after the value.
    """
    if len(payload) >= LARGE:
        found = _large_bytes(bytes(payload[:_HEADS]), len(payload))
        if found:
            return _around(payload, *found, safe)
        if isinstance(payload, Pieces):
            payload = bytes(payload)
        if safe and too_heavy(payload, packet=True):
            raise UnsafeTerm(f"the value {TOO_HEAVY}")
    array = b"".join((b"\x82", payload, _END_ITEM))  # type: ignore[arg-type]  # what is short is in one piece
    value, end = _decoded(array, safe, _CBOR_DEPTH + 1)  # and the packet's own array
    if type(end) is not bytes or end != _END:
        raise BadPacket("there are bytes left over after the value")
    if type(value) is list:  # [ref, value, ...]: the array of the packet does not count.
        for part in value:
            if type(part) not in LEAVES:
                judge(value, MAX_DEPTH, NO_DATA if safe else _NOTHING)
                break
    elif type(value) not in ATOMS:
        judge((value,), MAX_DEPTH, NO_DATA if safe else _NOTHING)
    return value


def decode_pair(items: bytes, safe: bool = True) -> tuple[Any, Any]:
    """The two items of an array, as `decode` would give them.

    items:  the array without its head; less than LARGE bytes.
    raises: as decode(). The first item is not judged: see to it that it is a reference.
    """
    first, second, end = _decoded(b"".join((b"\x83", items, _END_ITEM)), safe, _CBOR_DEPTH)
    if type(end) is not bytes or end != _END:
        raise BadPacket("there are bytes left over after the second value")
    if type(second) not in LEAVES:
        judge((second,), MAX_DEPTH, NO_DATA if safe else _NOTHING)
    return first, second


def _decoded(array: bytes, safe: bool, depth: int) -> Any:
    """The items of an array whose last one is _END_ITEM. raises: as decode()."""
    try:
        return loads(
            array,
            semantic_decoders=SAFE if safe else LENIENT,
            tag_hook=refuse_tag if safe else None,
            max_depth=depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except CBORDecodeError as exc:
        error = _refusal(exc)
        raise error from (exc if error is not exc.__cause__ else error.__cause__)
    except Exception as exc:
        raise BadPacket(f"the payload could not be decoded: {exc!r}") from exc


def _refusal(exc: CBORDecodeError) -> BaseException:
    """What `loads` raised, in our words."""
    cause = exc.__cause__
    if isinstance(cause, ProtocolError) or (cause is not None and not isinstance(cause, Exception)):
        # cbor2 wraps whatever our callbacks raise. Of that, an exit or a timeout must pass as it is.
        return cause
    text = (f"{exc}: {cause}" if cause is not None else f"{exc}")[:200]
    if any(mark in text for mark in _UNSAFE):
        return UnsafeTerm(f"the value is refused: {text}")
    return BadPacket(f"the payload is no CBOR of ours, or was cut short: {text}")


def _large_bytes(payload: bytes, size: int) -> tuple[int, int, int] | None:
    """Where a long byte string is the whole value, or the second item of an array as in [ref, value, meta].

    payload: its first _HEADS bytes.
    size:    of all of it, at least LARGE.
    return:  offsets of its head, its first byte, and the byte after it.
    """
    head = 0
    if payload[0] in (0x82, 0x83):
        if payload[1] not in _REF_SIZES:
            return None
        head = 1 + _REF_SIZES[payload[1]]
    start = head + _BYTES_HEADS.get(payload[head], 0)
    end = start + int.from_bytes(payload[head + 1 : start], "big")
    return (head, start, end) if head + 1 < start <= end - LARGE and end <= size else None


def _around(payload: bytes | memoryview | Pieces, head: int, start: int, end: int, safe: bool) -> Any:
    rest = decode(b"".join((payload[:head], b"\x40", payload[end:])), safe)
    large = bytes(payload[start:end])
    if not head:
        return large
    rest[1] = large
    return rest
