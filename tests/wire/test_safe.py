"""What is refused of what a peer sends."""

from __future__ import annotations

import itertools
import time
from decimal import Decimal
from fractions import Fraction

import cbor2
import pytest
from cbor2 import CBORTag

from erps_gevent.errors import BadPacket, EncodeError, UnsafeTerm
from erps_gevent.wire import types
from erps_gevent.wire.safe import clash
from erps_gevent.wire.terms import decode, encode, register_type

P = 2**61 - 1  # hash(n) is n modulo this
OURS = {0, 2, 3, *types.UNPACK, types.TUPLE, types.SET, types.FROZENSET, types.DICT, types.APPLICATION}
CONTENTS = [None, 0, 1, 1.5, "x", "2020-01-01", b"", b"abcd", bytes(16), [], [1, 2], [b"abcd", 8], {}, {"a": 1}]


def tagged(tag, content):
    return cbor2.dumps(CBORTag(tag, content))


# tags


@pytest.mark.parametrize("first", range(0, 2048, 256))
def test_no_tag_but_those_of_the_table_is_read(first):
    # This fails when a newer cbor2 reads a tag that it left alone before: add it to _KNOWN_TO_CBOR2.
    for tag in range(first, first + 256):
        if tag not in OURS:
            for content in CONTENTS:
                with pytest.raises(UnsafeTerm, match=f"tag {tag} is not one of ours"):
                    decode(tagged(tag, content))


@pytest.mark.parametrize("tag", [43001, 55799, 55800, 65535, 65536, 2**32, 2**64 - 1])
def test_no_tag_of_a_high_number_is_read(tag):
    with pytest.raises(UnsafeTerm, match=f"tag {tag} "):
        decode(tagged(tag, [1]))


@pytest.mark.parametrize("tag", [1, 4, 5, 25, 28, 29, 35, 36, 52, 100, 256, 261, 55799, 12345])
def test_without_safe_other_tags_are_kept_as_tags(tag):
    value = decode(tagged(tag, "x"), safe=False)
    assert type(value) is CBORTag
    assert (value.tag, value.value) == (tag, "x")


@pytest.mark.parametrize("head", ["f7", "e0", "f3", "f8ff"])
def test_simple_values_are_no_data(head):
    for wrapped in ("{}", "81{}", "d85881{}", "a1616b{}", "d996d38200{}"):
        payload = bytes.fromhex(wrapped.format(head))
        with pytest.raises(UnsafeTerm, match="no data"):
            decode(payload)
        decode(payload, safe=False)


def test_simple_values_are_no_data_as_keys_either():
    with pytest.raises(UnsafeTerm, match="no data"):
        decode(tagged(types.DICT, [cbor2.undefined, 1]))


def test_simple_values_are_no_data_inside_an_application_type():
    with pytest.raises(UnsafeTerm, match="no data"):
        decode(tagged(types.APPLICATION, ["name", [cbor2.undefined]]))
    with pytest.raises(UnsafeTerm, match="not known here"):
        decode(tagged(types.APPLICATION, ["name", [None]]))


# depth


def nested(depth, head, tail=b"\x00"):
    return head * depth + tail


HEADS = {
    "list": b"\x81",
    "dict": b"\xa1\x61k",
    "tuple": b"\xd8\x58\x81",
    "dict of ints": b"\xd9\x96\xd3\x82\x01",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_depth_is_bounded_through_every_container(head):
    for packet in (b"", b"\x82\x01"):
        decode(packet + nested(64, head))
        with pytest.raises(UnsafeTerm, match="nested deeper than 64"):
            decode(b"\x82\x01" + nested(65, head))
    with pytest.raises(UnsafeTerm, match="nesting depth"):
        decode(nested(50_000, head))


def test_depth_is_bounded_in_keys():
    payload = b"\xd9\x96\xd3\x82" + nested(64, HEADS["tuple"]) + b"\x00"
    with pytest.raises(UnsafeTerm, match="nested deeper"):
        decode(payload)


@pytest.mark.parametrize("tag", [b"\xd9\x01\x02", b"\xd9\x96\xd4", b"\xc2", b"\xd9\xd9\xf7"])
def test_tags_upon_tags_are_refused(tag):
    with pytest.raises((UnsafeTerm, BadPacket)):
        decode(nested(200_000, tag))


@pytest.mark.parametrize("make", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {1: v}])
def test_what_may_be_sent_may_be_received(make):
    value = 1.5j
    for _ in range(64):
        value = make(value)
    assert decode(b"\x82\x01" + encode(value)) == [1, value]
    with pytest.raises(EncodeError, match="deeper than 64"):
        encode(make(value))


# keys


def colliding(count):
    return [n * P for n in range(1, count + 1)]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n * P,
        lambda n: Decimal(n * P),
        lambda n: Fraction(n * P),
        lambda n: (n * P, "x"),
        lambda n: frozenset([n * P]),
    ],
    ids=["int", "Decimal", "Fraction", "tuple", "frozenset"],
)
def test_colliding_keys_are_refused_at_both_ends(make):
    keys = [make(n) for n in range(1, 34)]
    assert len({hash(key) for key in keys}) == 1
    for value in (set(keys), frozenset(keys), dict.fromkeys(keys)):
        with pytest.raises(EncodeError, match="more than 32 keys have the same hash"):
            encode(value)
    few = set(keys[:32])
    assert decode(encode(few)) == few


@pytest.mark.parametrize("tag", [types.SET, types.FROZENSET])
def test_half_a_megabyte_of_colliding_keys_is_refused_at_once(tag):
    payload = tagged(tag, colliding(50_000))
    assert len(payload) > 500_000
    began = time.perf_counter()
    with pytest.raises(UnsafeTerm, match="same hash"):
        decode(payload)
    assert time.perf_counter() - began < 2  # measured: 0.02 s; a set of them takes 13 s


def test_colliding_keys_of_a_dict_are_refused():
    with pytest.raises(UnsafeTerm, match="same hash"):
        decode(tagged(types.DICT, [item for key in colliding(33) for item in (key, None)]))


@pytest.mark.parametrize("wrap", [lambda key: [key], lambda key: [[key]]], ids=["plain", "inside"])
def test_keys_that_take_too_long_to_compare_are_refused(wrap):
    # Python compares an int to a Decimal in quadratic time: this pair takes 20 s.
    huge = 1 << 4_000_000
    payload = bytearray(b"\xd9\x01\x02\x82")
    for key in (cbor2.dumps(huge), encode(Decimal(hash(huge)))):
        payload += (b"\xd8\x58\x81" if wrap(0) != [0] else b"") + key
    began = time.perf_counter()
    with pytest.raises(UnsafeTerm, match="too large to compare"):
        decode(bytes(payload))
    assert time.perf_counter() - began < 2


def test_a_grid_of_small_points_is_no_attack():
    grid = {(x, y, z): x for x in range(-5, 6) for y in range(-5, 6) for z in range(-5, 6)}
    assert decode(encode(grid)) == grid


def test_equal_keys_of_other_types_are_seen_as_twice():
    assert clash([1, 2, 1.0]) == "a key is there twice"
    assert clash([-1, -2]) is None
    assert clash([]) is None


@pytest.mark.parametrize(
    "payload",
    [
        tagged(types.DICT, [1, "a", 1, "b"]),
        tagged(types.DICT, [1, "a", True, "b"]),
        tagged(types.SET, ["a", "a"]),
        tagged(types.FROZENSET, [0.0, -0.0]),
    ],
)
def test_a_key_that_is_there_twice_is_refused(payload):
    with pytest.raises(UnsafeTerm, match="twice"):
        decode(payload)


@pytest.mark.parametrize(
    "payload", [tagged(types.SET, [[]]), tagged(types.DICT, [{}, 1]), tagged(types.FROZENSET, [[1]])]
)
def test_a_key_that_cannot_be_one_is_a_bad_packet(payload):
    with pytest.raises(BadPacket, match="cannot be one"):
        decode(payload)


def test_a_dict_of_an_odd_number_of_items_is_a_bad_packet():
    with pytest.raises(BadPacket):
        decode(tagged(types.DICT, [1, 2, 3]))


@pytest.mark.parametrize("tag", [types.TUPLE, types.SET, types.FROZENSET, types.DICT])
@pytest.mark.parametrize("content", [1, "text", b"bytes", {"a": 1}, None])
def test_a_container_goes_over_an_array(tag, content):
    with pytest.raises(BadPacket, match="over an array"):
        decode(tagged(tag, content))


def test_containers_come_back_as_what_they_were():
    value = [(1, [2]), {3}, frozenset([4]), {5: (6,)}]
    assert decode(encode(value)) == value


def test_register_type_is_reached_from_terms():
    assert register_type is types.register_type


def test_keys_with_one_hash_that_take_long_to_compare_are_refused():
    """32 tuples of many parts, equal but for five small numbers at their ends, would be compared 496 times."""
    ends = itertools.product((-1, -2), repeat=5)
    keys = [(*range(1000), *end) for end in ends]
    assert len(set(map(hash, keys))) == 1
    assert clash(keys) == "keys have the same hash, and are too large to compare"
    assert clash([key[-7:] for key in keys]) is None
    assert clash([*keys[:1], *range(5000)]) is None
    assert clash([(0, (end[-5:],) * 40) for end in keys]) is not None
