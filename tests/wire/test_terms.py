"""Values come back with their types; any bytes give a value or a named error."""

from __future__ import annotations

import math
import struct
from collections import OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from typing import NamedTuple
from uuid import UUID

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from erps_gevent.errors import BadPacket, EncodeError, UnsafeTerm
from erps_gevent.wire import terms, types
from erps_gevent.wire.terms import LARGE, decode, decode_pair, encode, register_type


def alike(one, other):
    """Equal, and of the same types all the way down; NaN is like NaN, and 0.0 is not like -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (float, complex, Decimal)):
        return repr(one) == repr(other)
    if isinstance(one, (datetime, time)):
        return one == other and one.utcoffset() == other.utcoffset()
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, (set, frozenset)):
        return sorted(map(shape, one)) == sorted(map(shape, other))
    if isinstance(one, dict):
        return alike(list(one), list(other)) and alike(list(one.values()), list(other.values()))
    return one == other


def shape(value):
    """Text that is the same for what is alike, whatever the order of a set."""
    if isinstance(value, frozenset):
        return f"frozenset{sorted(map(shape, value))}"
    if isinstance(value, tuple):
        return f"tuple{list(map(shape, value))}"
    text = str(value) if isinstance(value, (datetime, time)) else repr(value)  # fold is not carried
    return f"{type(value).__name__} {text}"


zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=zones),
    st.dates(),
    st.times(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals().filter(lambda value: not value.is_snan()),
    st.fractions(),
    st.complex_numbers(),
    st.uuids(),
    st.ip_addresses(),
    st.ip_addresses().map(ip_network),
    st.ip_addresses().map(ip_interface),
)
# deferred: its repr is short, and Hypothesis warns of a long one.
keys = st.deferred(
    lambda: st.recursive(
        hashables, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=6
    )
)
values = st.recursive(
    keys,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_comes_back_with_its_types(value):
    assert alike(decode(encode(value)), value)
    assert alike(decode(b"\x82\x05" + encode(value)), [5, value])
    assert alike(decode(memoryview(encode(value)), safe=False), value)


@pytest.mark.parametrize(
    "value",
    [
        [1, 1.0, True, 0, 0.0, -0.0, False, None, "", b""],
        [math.inf, -math.inf, math.nan, 5e-324, 0.1],
        [2**63, 2**64 - 1, 2**64, -(2**64), -(2**64) - 1, 1 << 10_000],
        {1: "int"},
        {True: "bool"},
        {1.0: "float"},
        {None: "none", (): "empty", ("a", (1, frozenset([2]))): [set(), {3}, frozenset()]},
        {"text": 1, b"bytes": 2},
        {"z": 1, "a": 2, 3: 3, "b": 4},
        ((), [], {}, set(), frozenset()),
        ((1, [2, (3,)]), [(4,)]),
        {Decimal("1.0"): UUID(int=7), Fraction(1, 3): 1j},
        {datetime(2026, 1, 1), date(2026, 1, 1), time(1), timedelta(1), ip_address("::1")},
    ],
    ids=repr,
)
def test_types_are_told_apart(value):
    assert alike(decode(encode(value)), value)


def test_only_what_is_not_plain_cbor_has_a_tag():
    assert encode(("add", 1)).hex() == "d858826361646401"
    assert encode({"a": [None, True, b"x"]}) == cbor2.dumps({"a": [None, True, b"x"]})
    assert encode({1}).hex() == "d901028101"
    assert encode(frozenset({1})).hex() == "d996d28101"
    assert encode({1: 2}).hex() == "d996d3820102"


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (type("Names", (list,), {})([1, [2]]), [1, [2]]),
        (OrderedDict([("b", 1), ("a", 2)]), {"b": 1, "a": 2}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (type("Bag", (set,), {})({1}), {1}),
        (type("Sack", (frozenset,), {})({1}), frozenset({1})),
        ({type("Name", (str,), {})("k"): Point(3, 4)}, {"k": (3, 4)}),
    ],
    ids=repr,
)
def test_a_subclass_of_a_container_travels_as_the_container(value, plain):
    assert alike(decode(encode(value)), plain)


def test_an_ordered_dict_keeps_its_order():
    value = OrderedDict.fromkeys("abc")
    value.move_to_end("a")
    assert list(decode(encode(value))) == ["b", "c", "a"]


# what cannot be sent


class Odd:
    def __repr__(self):
        return "<Odd>"


class Plain(Enum):
    ONE = 1


CYCLE: list = []
CYCLE.append([CYCLE, CYCLE])
MAP_CYCLE: dict = {}
MAP_CYCLE[1] = MAP_CYCLE

REFUSED = [
    (Odd(), "request:", "Odd does not travel"),
    ((1, {"when": Odd()}), "request[1]['when']:", "Odd"),
    ([[0, (1, 2, Odd())]], "request[0][1][2]:", "Odd"),
    ({1: {2: Odd()}}, "request[1][2]:", "Odd"),
    ({(1, Odd()): 1}, "request[key (1, <Odd>)][1]:", "Odd"),
    ({Odd()}, "request[item <Odd>]:", "Odd"),
    (frozenset([Plain.ONE]), "request[item <Plain.ONE: 1>]:", "Plain does not travel"),
    (object, "request:", "the type type does not travel"),
    (range(3), "request:", "range"),
    (deque(), "request:", "collections.deque"),
    (cbor2.undefined, "request:", "UndefinedType"),
    (cbor2.CBORTag(35, "x"), "request:", "CBORTag"),
    (lambda: 0, "request:", "function"),
    (["ok", "\ud800"], "request[1]:", "lone surrogate"),
    ("\ud800", "request:", "lone surrogate"),
    ({"k": ("\udfff",)}, "request['k'][0]:", "lone surrogate"),
    ({"\ud800": 1}, "request[key '\\ud800']:", "lone surrogate"),
    ({1: "a", 2: "\ud800"}, "request[2]:", "lone surrogate"),
    ({type("Name", (str,), {})("\ud800")}, "request[item '\\ud800']:", "lone surrogate"),
    ([1, Fraction(1 << 20_000)], "request[1]:", "16384 bits"),
    ([{n * (2**61 - 1) for n in range(40)}], "request[0]:", "the same hash"),
    (CYCLE, "request[0][0][0][0][0][0]...[0][0][0][0][0][0]:", "nested deeper than 64, or contains itself"),
    (MAP_CYCLE, "request[1]", "contains itself"),
]


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED, ids=[path for _, path, _ in REFUSED])
def test_what_cannot_be_sent_is_named_with_its_path(value, path, reason):
    with pytest.raises(EncodeError) as info:
        encode(value, "request")
    assert path in str(info.value)
    assert reason in str(info.value)


@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {1: v}, lambda v: [1, {"k": (v,)}]]
)
def test_a_value_nested_twenty_thousand_deep_is_refused(make):
    value = None
    for _ in range(20_000):
        value = make(value)
    with pytest.raises(EncodeError, match="deeper than 64"):
        encode(value)


def test_an_application_type_inside_itself_is_refused():
    class Link:
        pass

    register_type(Link, "test_terms.Link", pack=lambda link: [link], unpack=list)
    try:
        with pytest.raises(EncodeError, match="contains itself"):
            encode(Link())
    finally:
        del types.REGISTERED[Link], types._NAMES["test_terms.Link"]


class Broken(list):
    def __iter__(self):
        raise RuntimeError("no items today")


def test_a_value_that_fails_while_it_is_read_is_an_encode_error():
    with pytest.raises(EncodeError, match="no items today") as info:
        encode([Broken([1])], "request")
    assert isinstance(info.value.__cause__, RuntimeError)


def test_text_that_was_mended_meanwhile_is_still_an_error(monkeypatch):
    def changed(value):
        value[:] = ["mended"]
        return "\ud800".encode()

    monkeypatch.setattr(terms, "dumps", changed)
    with pytest.raises(EncodeError, match="UnicodeEncodeError"):
        encode(["\ud800"])


# large byte strings


SIZES = [LARGE - 1, LARGE, 65535, 65536, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_a_large_byte_string_is_the_same_cbor(size):
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert encode(value) == cbor2.dumps(value)
    assert decode(encode(value)) == value


@pytest.mark.parametrize("ref", [None, 0, 23, 24, 255, 65535, 65536, 2**32, 2**64 - 1])
@pytest.mark.parametrize("rest", [[], [{"left": 1.5}]])
def test_a_large_byte_string_in_a_packet_is_read(ref, rest):
    packet = [ref, bytes(LARGE), *rest]
    assert alike(decode(cbor2.dumps(packet)), packet)
    assert alike(decode(memoryview(cbor2.dumps(packet))), packet)


@pytest.mark.parametrize(
    "value",
    [
        [bytes(LARGE), 1],
        [bytes(LARGE), bytes(LARGE), bytes(LARGE)],
        ["ref", bytes(LARGE)],
        [1, bytes(10), bytes(LARGE)],
        [-1, bytes(LARGE)],
        [1, "x" * LARGE],
        [1, 2, 3, bytes(LARGE)],
        "x" * LARGE,
        list(range(LARGE)),
    ],
    ids=range(9),
)
def test_large_values_of_other_shapes_are_read(value):
    assert alike(decode(cbor2.dumps(value)), value)


def test_a_large_byte_string_beyond_four_gibibytes_has_a_head_of_nine_bytes():
    value = bytes(LARGE)
    assert decode(b"\x82\x01\x5b" + struct.pack(">Q", LARGE) + value) == [1, value]


@pytest.mark.parametrize("shift", [-1, 1, 2**31])
def test_a_large_byte_string_of_a_wrong_size_is_a_bad_packet(shift):
    for start in (b"", b"\x82\x01"):
        with pytest.raises(BadPacket):
            decode(start + b"\x5a" + struct.pack(">I", 2 * LARGE + shift) + bytes(2 * LARGE))


# what is no value


WHOLE = encode(("add", [1, {"k": Decimal("1.5")}, {2: {3}}], "text", b"bytes", 2**70))


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_value_that_is_cut_short_is_a_bad_packet(cut):
    with pytest.raises(BadPacket):
        decode(WHOLE[:cut])


@pytest.mark.parametrize("tail", [b"\x00", b"\xf6", b"\xff", WHOLE, b"\x50" + bytes(16)])
def test_left_over_bytes_are_a_bad_packet(tail):
    with pytest.raises(BadPacket, match=r"left over|no CBOR"):
        decode(WHOLE + tail)


class Token(bytes):
    """Bytes of an application, and equal to other bytes."""


@pytest.fixture
def token():
    register_type(Token, "token", pack=bytes, unpack=Token)
    yield
    del types.REGISTERED[Token], types._NAMES["token"]


def test_no_type_of_an_application_is_the_end_of_a_value(token):
    begun = encode(Token(b""))[:-1]  # what is in it is read from behind the payload
    for read, start in ((decode, b"\x01"), (decode_pair, b"\x01\x02")):
        with pytest.raises(BadPacket, match="left over"):
            read(start + begun)


def test_a_pair_is_the_values_of_an_array_without_its_head():
    assert decode_pair(encode(7) + WHOLE) == (7, decode(WHOLE))
    assert decode_pair(encode(None) + encode("x"), safe=False) == (None, "x")


@pytest.mark.parametrize("items", [b"", encode(7), encode(7) + WHOLE[:-1], encode(7) + WHOLE + b"\x00", b"\x1c"])
def test_what_is_no_pair_is_a_bad_packet(items):
    with pytest.raises(BadPacket):
        decode_pair(items)


def test_the_second_of_a_pair_is_judged():
    deep = b"\x81" * 65 + b"\x00"
    with pytest.raises(UnsafeTerm, match="nested deeper"):
        decode_pair(encode(7) + deep)


@pytest.mark.parametrize(
    ("payload", "error", "text"),
    [
        ("5f4100ff", UnsafeTerm, "indefinite length"),
        ("7f6161ff", UnsafeTerm, "indefinite length"),
        ("9f00ff", UnsafeTerm, "indefinite length"),
        ("bf616100ff", UnsafeTerm, "indefinite length"),
        ("a2616101616102", UnsafeTerm, "Duplicate map key"),
        ("a10101", UnsafeTerm, "map key must be"),
        ("a1f93c0001", UnsafeTerm, "map key must be"),
        ("c25f4100ff", UnsafeTerm, "indefinite length"),
        ("d82301", UnsafeTerm, "tag 35 is not one of ours"),
        ("", BadPacket, "cut short"),
        ("ff", BadPacket, "no CBOR"),
        ("1c", BadPacket, "no CBOR"),
        ("62c328", BadPacket, "text"),
        ("63edb080", BadPacket, "text"),
        ("f818", BadPacket, "simple"),
        ("9b7fffffffffffffff", BadPacket, "cut short"),
        ("bb7fffffffffffffff", BadPacket, "cut short"),
        ("5b7fffffffffffffff", BadPacket, "cut short"),
        ("7bffffffffffffffff", BadPacket, "cut short"),
        ("d996d863656565", BadPacket, "tag 38616"),
    ],
)
def test_what_is_refused_has_a_name(payload, error, text):
    with pytest.raises(error, match=text):
        decode(bytes.fromhex(payload))


def test_an_unknown_failure_of_cbor2_is_a_bad_packet(monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(terms, "loads", fail)
    with pytest.raises(BadPacket, match="MemoryError") as info:
        decode(b"\x00")
    assert isinstance(info.value.__cause__, MemoryError)


class Leave(BaseException):
    pass


def test_an_exit_passes_through_decoding():
    def leave(data):
        raise Leave

    register_type(Odd, "test_terms.Odd", pack=repr, unpack=leave)
    try:
        payload = encode([Odd()])
        with pytest.raises(Leave):
            decode(payload)
    finally:
        del types.REGISTERED[Odd], types._NAMES["test_terms.Odd"]


# any bytes


def decoded_or_refused(payload):
    for safe in (True, False):
        try:
            value = decode(payload, safe)
        except (BadPacket, UnsafeTerm):
            continue
        if safe:
            assert alike(decode(encode_back(value)), value)


def encode_back(value):
    if type(value) is not list or len(value) > 23:
        return encode(value)
    # As the array of a packet it does not count as a level.
    return bytes((0x80 + len(value),)) + b"".join(map(encode, value))


@given(st.binary(max_size=200))
@example(b"\xd8\x58\x81" * 65 + b"\x00")
@settings(max_examples=400)
def test_random_bytes_give_a_value_or_a_named_error(payload):
    decoded_or_refused(payload)


@given(value=values, data=st.data())
@settings(max_examples=200)
def test_mutated_values_give_a_value_or_a_named_error(value, data):
    payload = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    decoded_or_refused(bytes(payload))


raw = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
tags = st.one_of(
    st.integers(0, 300),
    st.sampled_from([*types.UNPACK, types.TUPLE, types.SET, types.FROZENSET, types.DICT, types.APPLICATION, 55799]),
    st.integers(0, 2**64 - 1),
)


@given(
    st.recursive(raw, lambda inner: st.builds(cbor2.CBORTag, tags, inner | st.lists(inner, max_size=3)), max_leaves=4)
)
@settings(max_examples=400)
def test_any_tag_over_anything_gives_a_value_or_a_named_error(value):
    decoded_or_refused(cbor2.dumps(value))
