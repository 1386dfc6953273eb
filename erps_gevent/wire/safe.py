"""What is safe of what a peer sends: which tags are read, which keys, how deep, and what is refused.

The rules are the same for what we send, so that a value is refused where it was made and not at the other end:

    depth   at most 64 containers inside each other
    weight  of all parts together: see wire/weight.py
    keys    of a dict, items of a set: at most 32 with one hash, so that nobody can make a dict quadratic
    tags    those of `wire/types.py`. No shared references, so that a value has no cycles

cbor2 gives `tag_hook` only the tags that it does not know. Those that it knows and we do not want (regular
expressions, MIME messages, shared references, ...) are overridden one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn

from cbor2 import CBORSimpleValue, CBORTag, shareable_decoder, undefined

from erps_gevent.errors import BadPacket, UnsafeTerm
from erps_gevent.wire.types import APPLICATION, DICT, FROZENSET, PACK, SET, TUPLE, UNPACK, unpack_registered

MAX_DEPTH = 64

Types = frozenset[type]
ATOMS: Types = frozenset({type(None), bool, int, float, str, bytes})  # cbor2 takes and gives these as they are
LEAVES = ATOMS | PACK.keys()
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_no_containers = LEAVES.issuperset

# What cbor2 6.3 makes objects of, and the table of types does not have.
_KNOWN_TO_CBOR2 = (1, 4, 5, 25, 28, 29, 35, 36, 52, 54, 100, 256, 260, 261, 55799)
NO_DATA: Types = frozenset({CBORSimpleValue, type(undefined)})

_SAME_HASH = 32  # keys. The hash of -1 is that of -2, so points of five small numbers share one 32 times.
_KEY_PARTS = 1000  # of all keys that share one hash: each may be compared with 31 others
_KEY_BITS = 1 << 14  # Comparing an int to a Decimal takes quadratic time: 1.3 s at a mebibit.


def clash(keys: Collection[Any]) -> str | None:
    """Why these cannot be the keys of one dict, if they cannot."""
    hashes = list(map(hash, keys))
    if len(set(hashes)) == len(keys):
        return None  # No two are equal, and none will ever be compared.
    counts = Counter(hashes)
    if max(counts.values()) > _SAME_HASH:
        return f"more than {_SAME_HASH} keys have the same hash"
    groups: dict[int, list[Any]] = {}
    for key, hash_ in zip(keys, hashes, strict=True):
        if counts[hash_] > 1:
            groups.setdefault(hash_, []).append(key)
    if any(map(_are_huge, groups.values())):
        return "keys have the same hash, and are too large to compare"
    if len(set(keys)) < len(keys):
        return "a key is there twice"
    return None


def _are_huge(keys: list[Any]) -> bool:
    """Whether comparing these with each other may take long: there are many parts in them, or a large number."""
    rest = list(keys)
    for parts, key in enumerate(rest):  # it grows meanwhile
        if parts > _KEY_PARTS or (isinstance(key, int) and key.bit_length() > _KEY_BITS):
            return True
        if isinstance(key, (tuple, frozenset)):
            if len(key) > _KEY_PARTS:
                return True
            rest.extend(key)
    return False


def judge(values: Iterable[Any], room: int, refused: Types) -> None:
    """Refuse what cbor2 cannot refuse for us: depth as the sender counts it, and parts that are no data.

    values:  what is inside one container.
    room:    how many more containers may be inside each other.
    refused: NO_DATA, or nothing.
    raises:  UnsafeTerm  it is refused.
    """
    if _no_containers(map(type, values)):
        return
    if not room:
        raise UnsafeTerm(f"the value is nested deeper than {MAX_DEPTH}")
    for value in values:
        kind = type(value)
        if kind in LEAVES:
            continue
        if kind is dict:
            # Most are flat, as the meta of a packet is.
            if not (_no_containers(map(type, value.values())) and _no_containers(map(type, value))):
                judge(value.values(), room - 1, refused)
                judge(value.keys(), room - 1, refused)
        elif kind in _SEQUENCES:
            judge(value, room - 1, refused)
        elif kind in refused:
            raise UnsafeTerm(f"the value has a part that is no data: {value!r}")


def refuse_tag(tag: CBORTag, immutable: bool) -> NoReturn:
    """The `tag_hook` of safe mode."""
    raise UnsafeTerm(f"tag {tag.tag} is not one of ours; both ends should run the same version of this library")


def _refusal_of(tag: int) -> Callable[[Any], NoReturn]:
    return lambda value: refuse_tag(CBORTag(tag, None), False)


def _as_tag(tag: int) -> Callable[[Any], CBORTag]:
    return lambda value: CBORTag(tag, value)


def _read_list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise BadPacket(f"a tag of a container goes over an array, not over {type(value).__name__}")
    return value


def _read_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value if type(value) is list else _read_list(value))


def _read_keys(value: Any) -> list[Any]:
    keys = _read_list(value)
    try:
        reason = clash(keys)
    except TypeError as exc:
        raise BadPacket(f"a key or an item of a set has a type that cannot be one: {exc}") from exc
    if reason:
        raise UnsafeTerm(f"the keys of a dict or the items of a set are refused: {reason}")
    return keys


def _read_dict(value: Any) -> dict[Any, Any]:
    flat = _read_list(value)
    return dict(zip(_read_keys(flat[::2]), flat[1::2], strict=True))


def _read_registered(value: Any) -> Any:
    judge((value,), MAX_DEPTH, NO_DATA)
    return unpack_registered(value)


def _two_steps(read: Callable[[Any], Any], name: str) -> Any:
    # The plain form of a callback costs 0.3 us more in cbor2 6.3: it looks in vain for an attribute of this one.
    steps = (None, read)
    return shareable_decoder(name=name)(lambda immutable: steps)


_READERS: dict[int, Callable[[Any], Any]] = {
    **UNPACK,
    TUPLE: _read_tuple,
    SET: lambda value: set(_read_keys(value)),
    FROZENSET: lambda value: frozenset(_read_keys(value)),
    DICT: _read_dict,
    APPLICATION: _read_registered,
}
_OURS = {tag: _two_steps(read, f"tag {tag}") for tag, read in _READERS.items()}
SAFE = {**_OURS, **{tag: _two_steps(_refusal_of(tag), f"tag {tag}") for tag in _KNOWN_TO_CBOR2}}
LENIENT = {**_OURS, **{tag: _two_steps(_as_tag(tag), f"tag {tag}") for tag in _KNOWN_TO_CBOR2}}
