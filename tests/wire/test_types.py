"""The types that travel, and those that an application adds."""

from __future__ import annotations

import dataclasses
import math
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from enum import Enum, IntEnum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NamedTuple

import cbor2
import pytest

from erps_gevent.errors import BadPacket, ConfigError, EncodeError, UnsafeTerm
from erps_gevent.wire import types
from erps_gevent.wire.terms import decode, encode
from erps_gevent.wire.types import register_type


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    known, names = dict(types.REGISTERED), dict(types._NAMES)
    yield
    for table, before in ((types.REGISTERED, known), (types._NAMES, names)):
        table.clear()
        table.update(before)


def travelled(value):
    return decode(encode(value))


def tagged(tag, content):
    return cbor2.dumps(cbor2.CBORTag(tag, content))


class Color(IntEnum):
    RED = 1


class Label(str):
    def __str__(self):
        return "a disguise"


class Point(NamedTuple):
    x: int
    y: int


class Moment(datetime):
    pass


# The bytes of one value of each type: they are what older versions sent.
GOLDEN = [
    (datetime(2026, 10, 1, 12, 30, tzinfo=timezone.utc), "c07819323032362d31302d30315431323a33303a30302b30303a3030"),
    (datetime(2026, 10, 1, 12, 30, 0, 5), "d996d5781a323032362d31302d30315431323a33303a30302e303030303035"),
    (date(2026, 10, 1), "d903ec6a323032362d31302d3031"),
    (time(12, 30), "d996d66831323a33303a3030"),
    (timedelta(days=-1, microseconds=1), "d996d73b000000141dd75ffe"),
    (Decimal("-0"), "d996d8622d30"),
    (Fraction(-1, 3), "d81e822003"),
    (1.5 - 2j, "d9a7f882fb3ff8000000000000fbc000000000000000"),
    (uuid.UUID(int=1), "d8255000000000000000000000000000000001"),
    (IPv4Address("10.0.0.1"), "d996dc6831302e302e302e31"),
    (IPv4Network("10.0.0.0/8"), "d996dd6a31302e302e302e302f38"),
    (IPv4Interface("10.0.0.1/8"), "d996de6a31302e302e302e312f38"),
    (IPv6Address("fe80::1%eth0"), "d996df6c666538303a3a312565746830"),
    (IPv6Network("fe80::/10"), "d996e069666538303a3a2f3130"),
    (IPv6Interface("fe80::1%eth0/10"), "d996e16f666538303a3a3125657468302f3130"),
]


@pytest.mark.parametrize(("value", "golden"), GOLDEN, ids=[type(value).__name__ for value, _ in GOLDEN])
def test_a_value_has_its_bytes_and_comes_back(value, golden):
    assert encode(value).hex() == golden
    back = decode(bytes.fromhex(golden))
    assert back == value
    assert type(back) is type(value)
    assert str(back) == str(value)


@pytest.mark.parametrize(
    "text", ["0", "-0", "0.00", "1E+400", "-1E-400", "NaN", "-NaN123", "sNaN", "sNaN7", "Infinity", "-Infinity"]
)
def test_any_decimal_comes_back_as_it_was(text):
    assert str(travelled(Decimal(text))) == text


def test_a_decimal_does_not_depend_on_the_context():
    with localcontext(Context(prec=2, capitals=0)):
        back = travelled(Decimal("1.23456789E+30"))
    assert str(back) == "1.23456789E+30"


@pytest.mark.parametrize("value", [complex(-0.0, math.inf), complex(math.nan, -0.0)])
def test_any_complex_comes_back_as_it_was(value):
    assert repr(travelled(value)) == repr(value)


@pytest.mark.parametrize(
    "offset",
    [
        timedelta(0),
        timedelta(hours=-3, minutes=-30),
        timedelta(hours=1, seconds=2, microseconds=3),
        timedelta(microseconds=1),
        timedelta(microseconds=-999_999),
    ],
)
def test_an_offset_is_kept(offset):
    moment = datetime(2026, 10, 1, 12, 30, 59, 999999, timezone(offset))
    assert travelled(moment).utcoffset() == offset
    assert travelled(moment) == moment
    assert travelled(moment.timetz()) == moment.timetz()
    assert travelled(moment.timetz()).utcoffset() == offset


@pytest.mark.parametrize("value", [timedelta.max, timedelta.min, datetime.max, datetime.min, date.max, date.min])
def test_the_ends_of_a_range_come_back(value):
    assert travelled(value) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Color.RED, 1),
        (Label("text"), "text"),
        (Point(1, 2), (1, 2)),
        (type("Ratio", (float,), {})(0.5), 0.5),
        (type("Octets", (bytes,), {})(b"x"), b"x"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"abcd")[::2], b"ac"),
        (Moment(2026, 10, 1), datetime(2026, 10, 1)),
        (type("Money", (Decimal,), {})("1.10"), Decimal("1.10")),
    ],
)
def test_a_subclass_travels_as_the_nearest_type(value, plain):
    back = travelled(value)
    assert back == plain
    assert type(back) is type(plain)


class DateDependent(tzinfo):
    def utcoffset(self, moment):
        return None if moment is None else timedelta(hours=1)


def test_a_time_whose_zone_would_be_lost_is_refused():
    with pytest.raises(EncodeError, match=r"value\[0\].*depends on the date"):
        encode([time(12, tzinfo=DateDependent())])


def test_a_fraction_that_takes_too_long_to_reduce_is_refused_at_both_ends():
    assert travelled(Fraction(1 << 16000)) == 1 << 16000
    with pytest.raises(EncodeError, match="16384 bits"):
        encode(Fraction(1 << 16384))
    with pytest.raises(BadPacket, match="16384 bits"):
        decode(tagged(30, [1, 1 << 16384]))


MALFORMED = [
    (0, 1),
    (0, "2026-10-01T12:30:00"),
    (0, "soon"),
    (38613, "2026-10-01T12:30:00+00:00"),
    (1004, "x"),
    (38614, "x"),
    (38615, "x"),
    (38615, 10**30),
    (38616, "one"),
    (38616, 1),
    (30, [1]),
    (30, [1, 2.0]),
    (30, [True, 2]),
    (30, [1, 0]),
    (43000, [1, 2.0]),
    (43000, [1.0, 2]),
    (43000, []),
    (37, b"short"),
    (37, "text"),
    (38620, 1),
    (38620, "10.0.0.256"),
    (38621, "10.0.0.1/8"),
    (38623, "::x"),
]


@pytest.mark.parametrize(("tag", "content"), MALFORMED)
def test_malformed_content_of_a_tag_is_a_bad_packet(tag, content):
    with pytest.raises(BadPacket):
        decode(tagged(tag, content))


# register_type


@dataclass
class Money:
    amount: Decimal
    currency: str = "EUR"
    shown: str = dataclasses.field(init=False, default="")


class Shape(Enum):
    ROUND = "round"


def test_a_registered_dataclass_travels_by_its_fields():
    register_type(Money, "shop.Money")
    assert travelled({"price": [Money(Decimal("1.10"))]}) == {"price": [Money(Decimal("1.10"))]}
    assert (
        encode(Money(Decimal(1))).hex()
        == "d996d4826a73686f702e4d6f6e6579a266616d6f756e74d996d861316863757272656e637963455552"
    )


def test_a_registered_class_travels_by_its_functions():
    register_type(Shape, "Shape", pack=lambda shape: shape.value, unpack=Shape)
    assert travelled((Shape.ROUND, {Shape.ROUND: 1})) == (Shape.ROUND, {Shape.ROUND: 1})


def test_registering_the_same_again_changes_the_functions():
    register_type(Shape, "Shape", pack=lambda shape: shape.name, unpack=Shape)
    register_type(Shape, "Shape", pack=lambda shape: shape.value, unpack=Shape)
    assert travelled(Shape.ROUND) is Shape.ROUND


@pytest.mark.parametrize(
    ("again", "name", "text"),
    [
        (Money, "Cash", "Money is registered as 'Money' already"),
        (Shape, "Money", "Money is registered as 'Money' already"),
    ],
)
def test_a_class_has_one_name_and_a_name_one_class(again, name, text):
    register_type(Money, "Money")
    with pytest.raises(ConfigError, match=text):
        register_type(again, name, pack=str, unpack=str)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((int, "int"), "no class of yours"),
        ((tuple, "tuple"), "no class of yours"),
        (("Money", Money), "takes the class, then its name"),
        ((Money, ""), "such as 'shop.Money'"),
        ((Money, 7), "such as 'shop.Money'"),
        ((Shape, "Shape"), "give both pack= and unpack="),
    ],
)
def test_what_cannot_be_registered_is_a_config_error(arguments, text):
    with pytest.raises(ConfigError, match=text):
        register_type(*arguments)


def test_half_of_the_functions_is_a_config_error():
    with pytest.raises(ConfigError, match="give both"):
        register_type(Shape, "Shape", pack=str)


def test_a_subclass_that_adds_fields_to_a_dataclass_is_refused():
    @dataclass
    class Taxed(Money):
        tax: int = 0

    register_type(Money, "Money")
    with pytest.raises(EncodeError, match=r"order\['price'\].*would be lost"):
        encode({"price": Taxed(Decimal(1))}, "order")


def test_what_pack_raises_is_chained():
    register_type(Shape, "Shape", pack=lambda shape: 1 / 0, unpack=Shape)
    with pytest.raises(EncodeError, match=r"request\[1\].*Shape.*division by zero") as info:
        encode((1, Shape.ROUND), "request")
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_what_unpack_raises_is_chained():
    register_type(Shape, "Shape", pack=lambda shape: "square", unpack=Shape)
    with pytest.raises(BadPacket, match="'Shape' refused what the peer sent") as info:
        decode(encode([Shape.ROUND]))
    assert isinstance(info.value.__cause__, ValueError)


def test_an_application_type_that_is_not_registered_here_is_unsafe():
    payload = tagged(38612, ["shop.Money", {}])
    for safe in (True, False):
        with pytest.raises(UnsafeTerm, match=r"call register_type\(cls, 'shop.Money'\)"):
            decode(payload, safe)


@pytest.mark.parametrize("content", [1, [], ["name"], ["name", 1, 2], [1, 2], "ab"])
def test_malformed_application_types_are_a_bad_packet(content):
    with pytest.raises(BadPacket, match=r"\[name, value\]"):
        decode(tagged(38612, content))
