"""How many containers a payload holds."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from datetime import timedelta
from decimal import Decimal

import pytest
from cbor2 import dumps
from hypothesis import given
from hypothesis import strategies as st

from erps_gevent.errors import EncodeError, UnsafeTerm
from erps_gevent.wire import containers, terms
from erps_gevent.wire.containers import MAX_CONTAINERS, too_many
from erps_gevent.wire.terms import decode, encode

MEBIBYTE = 1024 * 1024
EMPTY = {"list": b"\x80", "dict": b"\xa0", "set": b"\xd9\x01\x02\x80", "tuple": b"\xd8\x58\x80"}


def many(item, count):
    return b"\x9a" + struct.pack(">I", count) + item * count


@pytest.fixture
def few(monkeypatch):
    """The bound, lowered so that examples stay small."""
    monkeypatch.setattr(containers, "MAX_CONTAINERS", 10)
    return 10


@pytest.mark.parametrize("item", EMPTY.values(), ids=EMPTY)
def test_containers_are_counted_whatever_they_become(item, few):
    assert not too_many(many(item, few - 1))
    assert too_many(many(item, few))


@pytest.mark.parametrize(
    "value",
    [
        ["\N{CYRILLIC SMALL LETTER BE}" * 100],
        [b"\x80" * 100],
        [0x80, 0x8080, 0x80808080, 2**63 + 0x80] * 5,
        [-129] * 20,
        [b"\x9f" * 300, "x" * 70_000],
    ],
    ids=["text", "bytes", "numbers", "negative numbers", "long strings"],
)
def test_bytes_that_look_like_heads_are_none(value, few):
    data = dumps(value)
    assert data.translate(None, containers._HEADS) != data
    assert not too_many(data)


@given(
    st.recursive(
        st.none() | st.binary(max_size=40) | st.text(max_size=40) | st.integers() | st.floats(),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=6),
        max_leaves=60,
    )
)
def test_the_count_is_that_of_the_value(value):
    def count(part):
        if isinstance(part, dict):
            return 1 + sum(map(count, part.values()))
        return 1 + sum(map(count, part)) if isinstance(part, list) else 0

    data = dumps(value)
    assert containers._exceeds(data, count(value)) is False
    assert containers._exceeds(data, count(value) - 1) is (count(value) > 0)


@pytest.mark.parametrize("head", [b"\x9f", b"\x1c", b"\xff", b"\x5f"])
def test_the_count_ends_where_cbor2_will(head, few):
    assert not too_many(many(head + b"\x80" * 50, 1))


def test_what_a_packet_has_around_a_value_does_not_count(few):
    value = many(b"\x80", few - 1)
    assert not too_many(value)
    assert not too_many(b"\x83\x01" + value + b"\xa0", packet=True)


def test_a_value_with_too_many_containers_is_refused_where_it_is_made(few):
    with pytest.raises(EncodeError, match=r"request holds more than 1,000,000 containers; send it in parts"):
        encode([[]] * few, "request")
    assert encode([[]] * (few - 1)) == dumps([[]] * (few - 1))


def test_the_bound_is_a_million():
    assert MAX_CONTAINERS == 1_000_000


def test_a_bomb_of_lists_is_refused_before_anything_is_made_of_it(monkeypatch):
    monkeypatch.setattr(containers, "MAX_CONTAINERS", 50_000)
    bomb = zlib.compress(many(b"\x80", 16 * MEBIBYTE - 5))
    assert len(bomb) < 20 * 1024
    payload = zlib.decompress(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeTerm, match="more than 1,000,000 containers"):
            decode(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(payload)


def test_who_asks_for_it_gets_any_number(few, monkeypatch):
    monkeypatch.setattr(terms, "MAX_CONTAINERS", few)
    assert decode(many(b"\x80", 50), safe=False) == [[]] * 50
    with pytest.raises(UnsafeTerm):
        decode(many(b"\x80", 50))


def test_large_values_of_the_usual_kind_travel():
    value = [[number, Decimal(number), timedelta(number), "\N{EURO SIGN}"] for number in range(20_000)]
    assert decode(encode(value)) == value
