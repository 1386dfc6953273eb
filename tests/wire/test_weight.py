"""How much a payload weighs, and what becomes of the heaviest that is taken."""

from __future__ import annotations

import re
import struct
import tracemalloc
import zlib
from datetime import timedelta
from decimal import Decimal

import pytest
from cbor2 import dumps
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from erps_gevent.errors import EncodeError, UnsafeTerm
from erps_gevent.wire import weight
from erps_gevent.wire.terms import LARGE, decode, encode
from erps_gevent.wire.types import DICT, IP_TAGS
from erps_gevent.wire.weight import MAX_WEIGHT, too_heavy

MEBIBYTE = 1024 * 1024
# What is short, and becomes large or takes long: the weight of each with its parts.
ITEMS = {
    "number": (b"\x18\xff", 1),
    "negative number": (b"\x38\x64", 1),
    "float": (b"\xf9\x3c\x00", 1),
    "text": (b"\x62ab", 2),
    "bytes": (b"\x42ab", 2),
    "list": (b"\x80", 4),
    "map": (b"\xa0", 4),
    "set": (b"\xd9\x01\x02\x80", 12),
    "tuple": (b"\xd8\x58\x80", 12),
    "timedelta": (b"\xd9\x96\xd7\x00", 9),
    "decimal": (b"\xd9\x96\xd8\x61\x30", 10),
    "dict": (b"\xd9\x96\xd3\x82\x01\x01", 30),
    "address": (b"\xd9\x96\xdf\x62::", 82),
    "network": (b"\xd9\x96\xe0\x62::", 82),
    "interface": (b"\xd9\x96\xe1\x62::", 82),
}


def many(item, count):
    return b"\x9a" + struct.pack(">I", count) + item * count


@pytest.fixture
def light(monkeypatch):
    """The bound, lowered so that examples stay small."""
    monkeypatch.setattr(weight, "MAX_WEIGHT", 1000)
    return 1000


@pytest.mark.parametrize(("item", "each"), ITEMS.values(), ids=ITEMS)
def test_everything_has_its_weight(item, each, light):
    most = (light - 4) // each
    assert not too_heavy(many(item, most))
    assert too_heavy(many(item, most + 1 + each))


@pytest.mark.parametrize(("item", "each"), ITEMS.values(), ids=ITEMS)
def test_the_heaviest_that_is_taken_stays_within_bounds(item, each, monkeypatch):
    """A fortieth of the real bound, for the sake of those who wait for the tests: 5 MiB of the 200."""
    monkeypatch.setattr(weight, "MAX_WEIGHT", MAX_WEIGHT // 40)
    payload = many(item, (weight.MAX_WEIGHT - 4) // each)
    tracemalloc.start()
    try:
        assert len(decode(payload)) == (weight.MAX_WEIGHT - 4) // each
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * MEBIBYTE


@pytest.mark.parametrize(
    "value",
    [
        ["\N{CYRILLIC SMALL LETTER BE}" * 5000],
        [b"\x80" * 5000, b"\xd9" * 5000],
        ["x" * 70_000, b"\xc1" * 70_000],
    ],
    ids=["text", "bytes", "long strings"],
)
def test_bytes_that_look_like_heads_weigh_nothing(value, light):
    data = dumps(value)
    assert weight._at_most(data) > light
    assert not too_heavy(data)


@given(
    st.recursive(
        st.none() | st.binary(max_size=40) | st.text(max_size=40) | st.integers(-(2**63), 2**63) | st.floats(),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=6),
        max_leaves=60,
    )
)
def test_the_weight_is_that_of_the_value_and_the_quick_look_never_finds_less(value):
    def weigh(part):
        if isinstance(part, dict):
            return 4 + sum(2 + weigh(item) for item in part.values())
        if isinstance(part, list):
            return 4 + sum(map(weigh, part))
        return 2 if isinstance(part, (str, bytes)) else 1

    data = dumps(value)
    assert weight._exceeds(data, weigh(value)) is False
    assert weight._exceeds(data, weigh(value) - 1) is True
    assert weight._at_most(data) >= weigh(value)
    assert len(data) * weight._HEAVIEST >= weigh(value)


@pytest.mark.parametrize("head", [b"\x9f", b"\x1c", b"\xff", b"\x5f"])
def test_the_weighing_ends_where_cbor2_will(head, light):
    assert not too_heavy(many(head + b"\x80" * 500, 1))


def test_what_a_packet_has_around_a_value_does_not_weigh(light):
    value = many(b"\x80", (light - 4) // 4)
    assert not too_heavy(value)
    assert not too_heavy(b"\x83\x01" + value + b"\xa0", packet=True)


def test_a_value_that_is_too_heavy_is_refused_where_it_is_made(light):
    with pytest.raises(EncodeError, match=r"request has too many parts: they weigh more than 4,000,000.*as bytes"):
        encode([[]] * (LARGE + light), "request")
    assert encode([[]] * 200) == dumps([[]] * 200)


def test_a_bomb_is_refused_before_anything_is_made_of_it():
    bomb = zlib.compress(many(ITEMS["interface"][0], 16 * MEBIBYTE // 6 - 5))
    assert len(bomb) < 32 * 1024
    payload = zlib.decompress(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeTerm, match=r"the value has too many parts"):
            decode(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(payload)


def test_who_asks_for_it_gets_any_number(light):
    assert decode(many(b"\x80", LARGE + light), safe=False) == [[]] * (LARGE + light)
    with pytest.raises(UnsafeTerm):
        decode(many(b"\x80", LARGE + light))


def test_large_values_of_the_usual_kind_travel():
    value = [[number, Decimal(number), timedelta(number), "\N{EURO SIGN}"] for number in range(20_000)]
    assert decode(encode(value)) == value


def test_the_document_has_the_weights_of_the_code():
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    said = text.partition("A value weighs at most")[2].partition("##")[0]
    assert said.startswith(f" {MAX_WEIGHT:,},")
    said = said.partition(":")[2]
    numbers = [int(number) for number in re.findall(r" (\d+)(?=[,;.\n])", said)]
    assert numbers == [1, 2, 4, 8, weight._BY_TAG[DICT], weight._BY_TAG[IP_TAGS[0]]]
    assert weight._BY_MAJOR == (1, 1, 2, 2, 4, 4, 8, 1)
