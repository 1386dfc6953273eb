"""What is sent is what OTP sends, byte for byte, and comes back; what cannot be sent is named with its place."""

from __future__ import annotations

import enum
import zlib
from collections import OrderedDict
from typing import NamedTuple

import erlang
import pytest
from erlang_terms import PYTHON, alike, recorded, terms
from hypothesis import given
from hypothesis import strategies as st

from erps_gevent.errors import BadPacket, EncodeError, PacketTooLarge
from erps_gevent.wire.etf import decode, encode, inflated, payload, term
from erps_gevent.wire.etf_types import INTEGER_SIZE, MAX_DEPTH, Atom, Bitstring, ImproperList, OpaqueTerm

MEBIBYTE = 1 << 20


def shown(value):
    return f"{value.bit_length()} bits" if isinstance(value, int) else repr(value)[:40]


RECORDED = {vector["name"]: vector for vector in recorded("terms.json")}


def test_each_recorded_term_has_its_value_here():
    assert RECORDED.keys() == PYTHON.keys()


@pytest.mark.parametrize("name", PYTHON)
def test_a_recorded_term_is_read_and_written_as_otp_writes_it(name):
    value = PYTHON[name]
    plain = bytes.fromhex(RECORDED[name]["etf"])
    assert alike(decode(plain), value)
    assert encode(value).hex() == plain.hex()


@pytest.mark.parametrize("name", PYTHON)
def test_a_recorded_term_that_may_be_compressed_is_read_and_written_as_otp_writes_it(name):
    value = PYTHON[name]
    squeezed = bytes.fromhex(RECORDED[name]["etf_compressed"])
    assert alike(decode(inflated(squeezed, MEBIBYTE)), value)
    ours = encode(value, level=9)
    assert alike(decode(inflated(ours, MEBIBYTE)), value)
    assert ours[:2] == squeezed[:2], "OTP compresses exactly when that is no longer"
    if zlib.ZLIB_RUNTIME_VERSION.count(".") == 2 and "zlib-ng" not in zlib.ZLIB_RUNTIME_VERSION:
        assert ours.hex() == squeezed.hex()


@given(terms)
def test_any_term_comes_back_with_its_types(value):
    assert alike(decode(encode(value)), value)
    assert encode(decode(encode(value))) == encode(value)


@given(terms, st.integers(-1, 9))
def test_any_term_comes_back_through_compression(value, level):
    assert alike(decode(inflated(encode(value, level=level), MEBIBYTE)), value)


# erlang-py has other types for the same terms, so bytes are compared: what it reads of ours, it writes alike.


@given(terms)
def test_erlang_py_reads_what_is_written_here(value):
    ours = encode(value)
    theirs = erlang.term_to_binary(erlang.binary_to_term(ours))
    assert alike(decode(theirs), decode(ours)), erlang.binary_to_term(ours)


@given(terms)
def test_erlang_py_reads_what_is_compressed_here(value):
    ours = encode(value, level=6)
    theirs = erlang.term_to_binary(erlang.binary_to_term(ours))
    assert alike(decode(theirs), decode(inflated(ours, MEBIBYTE)))


# What is sent as what.


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.IntEnum):
    RED = 1000


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1000),
        (type("Name", (str,), {})("n"), "n"),
        (type("Tag", (Atom,), {})("n"), Atom("n")),
        (type("Real", (float,), {})(1.5), 1.5),
        (type("Blob", (bytes,), {})(b"\xff"), b"\xff"),
        (type("Names", (list,), {})([None]), [None]),
        (type("Room", (bytearray,), {})(b"\xff"), b"\xff"),
        (OrderedDict([("b", 1), ("a", 2)]), {"b": 1, "a": 2}),
        (bytearray(b"\xff"), b"\xff"),
        (memoryview(b"\xff\xfe\xfd")[::2], b"\xff\xfd"),
        (b"text", "text"),
        (Atom("nil"), None),
        (Atom("true"), True),
        (type("Bits", (Bitstring,), {})(b"\xa0", 3), Bitstring(b"\xa0", 3)),
        (type("Odd", (ImproperList,), {})((1,), 2), ImproperList((1,), 2)),
        (type("Key", (OpaqueTerm,), {})("list", b"k\0\1\1"), [1]),
    ],
    ids=repr,
)
def test_a_value_is_sent_as_the_nearest_type(value, plain):
    assert encode(value) == encode(plain)
    assert alike(decode(encode(value)), plain)


EDGES = [
    (0, "6100"),
    (255, "61ff"),
    (256, "6200000100"),
    (-1, "62ffffffff"),
    (2**31 - 1, "627fffffff"),
    (-(2**31), "6280000000"),
    (2**31, "6e040000000080"),
    (-(2**31) - 1, "6e040101000080"),
    (1 << 8 * 255 - 1, "6eff00" + 254 * "00" + "80"),
    (1 << 8 * 255, "6f0000010000" + 255 * "00" + "01"),
    ([0, 255], "6b000200ff"),
    ([256], "6c0000000162000001006a"),
    ([-1], "6c0000000162ffffffff6a"),
    ([2**70], "6c000000016e0900" + 8 * "00" + "406a"),
    ([True], "6c00000001640004747275656a"),
    ([1] * 0xFFFF, "6bffff" + 0xFFFF * "01"),
    ([1] * 0x10000, "6c00010000" + 0x10000 * "6101" + "6a"),
    ((None,) * 255, "68ff" + 255 * "6400036e696c"),
    ((1,) * 256, "6900000100" + 256 * "6101"),
    (Atom(""), "640000"),
    (Atom("ÿ"), "640001ff"),
    (Atom("Ā"), "7702c480"),
    (Atom("✓" * 85), "77ff" + 85 * "e29c93"),
    (Atom("✓" * 255), "7602fd" + 255 * "e29c93"),
]


@pytest.mark.parametrize(("value", "expected"), EDGES, ids=shown)
def test_the_shortest_form_that_otp_has_is_taken(value, expected):
    assert term(value).hex() == expected


@pytest.mark.parametrize(("name", "expected"), [("ok", "77026f6b"), ("ÿ", "7702c3bf"), ("✓" * 255, "7602fd")])
def test_atoms_of_a_payload_that_may_be_compressed_are_all_utf_8(name, expected):
    assert term(Atom(name), utf8_atoms=True).hex().startswith(expected)


def test_the_order_of_a_map_is_kept():
    assert list(decode(encode({"z": 1, "a": 2, Atom("m"): 3}))) == ["z", "a", "m"]


def test_keys_that_python_tells_apart_and_erlang_too_are_kept():
    value = {1: "int", 1.5: "float", "1": "text", (1, "a"): "tuple", None: "nil", False: "false", b"\xff": "raw"}
    assert alike(decode(encode(value)), value)


# What cannot be sent.


class Hostile(dict):
    def __iter__(self):
        raise KeyError("not today")

    keys = __iter__


def loop():
    value = []
    value.append(value)
    return value


def deep(depth):
    value = 1
    for _ in range(depth):
        value = (value,)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1}, r"cannot send value: the type set has no term"),
        ([1, {"when": (object(),)}], r"cannot send value\[1\]\['when'\]\[0\]: the type object has no term"),
        ({"a": 1, (2, 3j): 4}, r"cannot send value\[key \(2, 3j\)\]\[1\]: the type complex"),
        ({2: [1.0, float("nan")]}, r"cannot send value\[2\]\[1\]: Erlang has no float for nan"),
        (float("inf"), "no float for inf; send None"),
        (["a", "\ud800"], r"cannot send value\[1\]: the text has a lone surrogate"),
        (Atom("\ud800"), "lone surrogate"),
        (Atom("x" * 256), "at most 255 characters, and this one 256; send it as text"),
        (1 << 8 * INTEGER_SIZE, f"has {INTEGER_SIZE + 1} bytes, and safe mode takes {INTEGER_SIZE}; send it as text"),
        ({"a": 1, b"a": 2}, "cannot send value: two of its keys are the same term"),
        ([{None: 1, Atom("nil"): 2}], r"cannot send value\[0\]: two of its keys"),
        (ImproperList((1, object()), 2), r"value\[1\]: the type object"),
        (ImproperList((1,), object()), r"value\[1\]: the type object"),
        (loop(), "nested deeper than 64, or contains itself"),
        (deep(65), "nested deeper than 64"),
        (ImproperList((deep(64),), 1), "nested deeper than 64"),
        ({1: deep(64)}, "nested deeper than 64"),
        (Hostile({1: 2}), "failed while it was being read"),
    ],
    ids=shown,
)
def test_what_cannot_be_sent_is_named_with_its_place(value, text):
    with pytest.raises(EncodeError, match=text):
        encode(value)


def test_what_was_wrong_with_the_text_is_chained():
    with pytest.raises(EncodeError) as caught:
        encode("\ud800", "request")
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)
    assert str(caught.value).startswith("cannot send request: ")


def test_what_the_value_raised_is_chained():
    with pytest.raises(EncodeError) as caught:
        encode(Hostile({1: 2}))
    assert isinstance(caught.value.__cause__, KeyError)


def test_the_limits_themselves_pass():
    assert decode(encode(deep(MAX_DEPTH))) == deep(MAX_DEPTH)
    largest = (1 << 8 * INTEGER_SIZE) - 1
    assert decode(encode(largest)) == largest


def test_an_unsafe_end_sends_integers_of_any_size():
    larger = -(1 << 8 * INTEGER_SIZE)
    assert decode(encode(larger, safe=False), safe=False) == larger


# Compression.


def test_what_would_be_longer_is_not_compressed():
    assert encode("short", level=9) == encode("short")
    assert encode("x" * 1000, level=0) == encode("x" * 1000)


def test_what_is_not_compressed_is_inflated_to_itself():
    plain = encode("short")
    assert inflated(plain, 10) is plain


def test_the_parts_of_a_payload_are_one_term():
    assert payload((b"h\x02", term(7), term(Atom("ok"))), None) == encode((7, Atom("ok")))


def squeezed(plain, declared=None, tail=b""):
    """A compressed term, whatever is in it."""
    size = len(plain) if declared is None else declared
    return b"\x83P" + size.to_bytes(4, "big") + zlib.compress(plain) + tail


def test_a_term_that_inflates_to_the_limit_is_taken_and_one_byte_more_is_not():
    plain = term("x" * 95)
    assert len(inflated(squeezed(plain), 101)) == 101
    with pytest.raises(PacketTooLarge, match="declares 100 bytes, and max_size is 100"):
        inflated(squeezed(plain), 100)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (squeezed(term("x" * 100), declared=50), "is not of the 50 bytes that it declares"),
        (squeezed(term("x" * 100), declared=500), "is not of the 500 bytes that it declares"),
        (squeezed(term("x" * 100), tail=b"more"), "goes on after its end"),
        (squeezed(term("x" * 100))[:-1], "declares, or goes on"),
        (squeezed(b"", tail=b"more"), "goes on"),
        (b"\x83P\0\0\0\5nonsense", "is compressed, and is not"),
        (b"\x83P\0\0\0\5", "of the 5 bytes"),
        (b"\x83P\0\0", "of the 0 bytes"),
    ],
)
def test_a_compressed_term_that_is_not_what_it_says_is_a_bad_packet(data, text):
    with pytest.raises(BadPacket, match=text):
        inflated(data, MEBIBYTE)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_inflate_or_are_named(data, declared):
    """Never any other error."""
    for whole in (b"\x83P" + data, squeezed(data, declared), squeezed(data)[: declared // 4]):
        try:
            plain = inflated(whole, 100)
        except (BadPacket, PacketTooLarge):
            continue
        assert len(plain) <= max(100, len(whole))
