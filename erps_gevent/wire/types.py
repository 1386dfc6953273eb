"""The types that travel: which CBOR tag stands for which Python type, and the types that an application adds.

    tag     Python                                   over
        0   datetime, aware                          text, ISO 8601
      2, 3  int beyond 64 bits                       bytes; cbor2's own
       30   Fraction                                 [numerator, denominator]
       37   UUID                                     bytes
       88   tuple                                    [item, ...]
      258   set                                      [item, ...]
     1004   date                                     text, ISO 8601
    38610   frozenset                                [item, ...]
    38611   dict with keys other than text or bytes  [key, value, key, value, ...]
    38612   a registered application type            [name, value]
    38613   datetime, naive                          text, ISO 8601
    38614   time                                     text, ISO 8601
    38615   timedelta                                int, microseconds
    38616   Decimal                                  text
    38620   IPv4Address                              text
    38621   IPv4Network                              text
    38622   IPv4Interface                            text
    38623   IPv6Address                              text
    38624   IPv6Network                              text
    38625   IPv6Interface                            text
    43000   complex                                  [real, imaginary]

None, bool, int, float, str, bytes, list, and a dict whose keys are text or bytes, are plain CBOR. Low numbers are
used as the IANA registry has them, 38610 and up are in a gap of its first-come range, and 88 is free there: it makes
the head of the most frequent tag one byte shorter. Tags 4, 52, 54, 260 and 261 of the registry lose what Python's types
have (Decimal's NaN and -0, an interface's scope), so they are not used.

An aware datetime arrives with its offset and not with the name of its zone; `fold` is not carried.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from cbor2 import CBORTag

from erps_gevent.errors import BadPacket, ConfigError, UnsafeTerm

TUPLE = 88
SET = 258
FROZENSET = 38610
DICT = 38611
IP_TAGS = range(38620, 38626)  # addresses, networks and interfaces
APPLICATION = 38612

_AWARE, _NAIVE = 0, 38613
_FRACTION_BITS = 1 << 14  # Reducing a fraction takes quadratic time: 0.4 ms at this size, 1.4 s at a mebibit.
_MICROSECOND = timedelta(microseconds=1)
_SUBSECOND_OFFSET = re.compile(r"([+-])00:00:00\.([0-9]{6})$")
_Zoned = TypeVar("_Zoned", datetime, time)

Pack = Callable[[Any], Any]

# What a leaf becomes for cbor2, by its type; and what a tag's content becomes.
PACK: dict[type, Pack] = {
    str: lambda value: _utf8(str.__str__(value)),
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: memoryview(value).tobytes(),
    bytearray: bytes,
    memoryview: memoryview.tobytes,
}
UNPACK: dict[int, Pack] = {}


def _utf8(text: str) -> str:
    text.encode()  # A lone surrogate raises here, and not in cbor2, where the path to it is not known.
    return text


def _leaf(cls: type, tag: int, content: type, pack: Pack, unpack: Pack) -> None:
    PACK[cls] = lambda value: CBORTag(tag, pack(value))
    UNPACK[tag] = _reader(tag, content, unpack)


def _reader(tag: int, content: type, unpack: Pack) -> Pack:
    def read(value: Any) -> Any:
        # cbor2 hands the content over as it is, and Decimal or IPv4Address would take an int or bytes, too.
        if type(value) is not content:
            raise BadPacket(f"tag {tag} goes over {content.__name__}, not over {type(value).__name__}")
        return unpack(value)

    return read


def _pack_datetime(value: datetime) -> CBORTag:
    return CBORTag(_NAIVE if value.utcoffset() is None else _AWARE, datetime.isoformat(value))


def _zone_mended(value: _Zoned, text: str) -> _Zoned:
    # fromisoformat takes an offset of less than a second for UTC.
    odd = _SUBSECOND_OFFSET.search(text)
    return value.replace(tzinfo=timezone(int(odd[1] + odd[2]) * _MICROSECOND)) if odd else value


def _unpack_aware(text: str) -> datetime:
    value = _zone_mended(datetime.fromisoformat(text), text)
    if value.utcoffset() is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return value


def _unpack_naive(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.utcoffset() is not None:
        raise ValueError(f"{text!r} has an offset from UTC")
    return value


def _pack_time(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError("the offset of its time zone depends on the date, so that it would be lost")
    return time.isoformat(value)


def _unpack_time(text: str) -> time:
    return _zone_mended(time.fromisoformat(text), text)


def _pack_fraction(value: Fraction) -> list[int]:
    return _bounded([value.numerator, value.denominator])


def _unpack_fraction(pair: list[Any]) -> Fraction:
    numerator, denominator = pair
    if type(numerator) is not int or type(denominator) is not int:
        raise TypeError("a fraction is two integers")
    return Fraction(*_bounded([numerator, denominator]))


def _bounded(pair: list[int]) -> list[int]:
    if max(map(int.bit_length, pair)) > _FRACTION_BITS:
        raise ValueError(f"a fraction of more than {_FRACTION_BITS} bits takes too long to reduce")
    return pair


def _unpack_complex(pair: list[Any]) -> complex:
    real, imaginary = pair
    if type(real) is not float or type(imaginary) is not float:
        raise TypeError("a complex number is two floats")
    return complex(real, imaginary)


PACK[datetime] = _pack_datetime
UNPACK[_AWARE] = _reader(_AWARE, str, _unpack_aware)
UNPACK[_NAIVE] = _reader(_NAIVE, str, _unpack_naive)
_leaf(date, 1004, str, date.isoformat, date.fromisoformat)
_leaf(time, 38614, str, _pack_time, _unpack_time)
_leaf(timedelta, 38615, int, lambda value: value // _MICROSECOND, lambda count: timedelta(microseconds=count))
_leaf(Decimal, 38616, str, Decimal.__str__, Decimal)
_leaf(Fraction, 30, list, _pack_fraction, _unpack_fraction)
_leaf(complex, 43000, list, lambda value: [value.real, value.imag], _unpack_complex)
_leaf(UUID, 37, bytes, lambda value: value.bytes, lambda octets: UUID(bytes=octets))
_leaf(IPv4Address, 38620, str, IPv4Address.__str__, IPv4Address)
_leaf(IPv4Network, 38621, str, IPv4Network.__str__, IPv4Network)
_leaf(IPv4Interface, 38622, str, IPv4Interface.__str__, IPv4Interface)
_leaf(IPv6Address, 38623, str, IPv6Address.__str__, IPv6Address)
_leaf(IPv6Network, 38624, str, IPv6Network.__str__, IPv6Network)
_leaf(IPv6Interface, 38625, str, IPv6Interface.__str__, IPv6Interface)


class Registered(NamedTuple):
    """An application type: `pack` turns a value into plain data, `unpack` turns that into a value again."""

    cls: type
    name: str
    pack: Pack
    unpack: Pack


REGISTERED: dict[type, Registered] = {}
_NAMES: dict[str, Registered] = {}
_BUILT_IN = frozenset({*PACK, type(None), bool, tuple, list, dict, set, frozenset})


def register_type(cls: type, name: str, *, pack: Pack | None = None, unpack: Pack | None = None) -> None:
    """Let values of `cls` travel. Both ends register it, each its own class, under the same name.

    cls:    the class. A subclass that is not registered itself travels as this one.
    name:   what the wire calls it; keep it when the class is renamed.
    pack:   makes plain data of a value: anything that travels. A dataclass needs none; its fields travel.
    unpack: makes a value of that data. The data comes from the peer: check it. A dataclass needs none.
            Neither may park: they run in the middle of sending and receiving.
    raises: ConfigError  the class travels anyway, class or name is registered already, or a function is missing.
    """
    if not isinstance(cls, type) or cls in _BUILT_IN:
        raise ConfigError(f"{cls!r} is no class of yours; register_type takes the class, then its name on the wire")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{name!r} is no name for {cls.__qualname__}; write a short text, such as 'shop.Money'")
    if is_dataclass(cls):
        default_pack, default_unpack = _dataclass_functions(cls)
        pack, unpack = pack or default_pack, unpack or default_unpack
    if not callable(pack) or not callable(unpack):
        raise ConfigError(f"{cls.__qualname__} is no dataclass; give both pack= and unpack= for {name!r}")
    entry = Registered(cls, name, pack, unpack)
    for known in (REGISTERED.get(cls, entry), _NAMES.get(name, entry)):
        if (known.cls, known.name) != (cls, name):
            raise ConfigError(f"{known.cls.__qualname__} is registered as {known.name!r} already; take another name")
    REGISTERED[cls] = _NAMES[name] = entry


def _dataclass_functions(cls: type) -> tuple[Pack, Pack]:
    names = [item.name for item in fields(cls) if item.init]

    def pack(value: Any) -> dict[str, Any]:
        if type(value) is not cls:
            raise TypeError(f"the fields that {type(value).__qualname__} adds to {cls.__qualname__} would be lost")
        return {name: getattr(value, name) for name in names}

    def unpack(data: Any) -> Any:
        return cls(**data)

    return pack, unpack


def unpack_registered(pair: Any) -> Any:
    """A value of an application type from the content of its tag.

    raises: UnsafeTerm  nobody here registered the name.
            BadPacket   the content has another shape, or `unpack` refused it; that error is chained.
    """
    if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
        raise BadPacket("the tag of application types goes over [name, value]")
    name, data = pair
    entry = _NAMES.get(name)
    if entry is None:
        shown = name[:100]
        raise UnsafeTerm(f"the application type {shown!r} is not known here; call register_type(cls, {shown!r})")
    try:
        return entry.unpack(data)
    except Exception as exc:
        raise BadPacket(f"the application type {name!r} refused what the peer sent: {exc}") from exc
