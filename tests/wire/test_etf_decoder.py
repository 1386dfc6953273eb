"""Any bytes give a term or a named error, within bounded memory; what is only data goes back as it came."""

from __future__ import annotations

import struct
import tracemalloc

import erlang
import pytest
from erlang_terms import PYTHON, alike, recorded, terms
from hypothesis import example, given, settings
from hypothesis import strategies as st

from erps_gevent.errors import BadPacket, ProtocolError, UnsafeTerm
from erps_gevent.wire import etf_decoder
from erps_gevent.wire.etf import decode, encode, term
from erps_gevent.wire.etf_types import (
    INTEGER_SIZE,
    MAX_ATOMS,
    MAX_TERMS,
    Atom,
    Bitstring,
    ImproperList,
    OpaqueTerm,
)

MEBIBYTE = 1 << 20
NODE = b"w\x0dnonode@nohost"
OLD_NODE = b"d\0\x0dnonode@nohost"


def read(text, **options):
    """The value of a term in hex, without the version byte."""
    return decode(b"\x83" + bytes.fromhex(text), **options)


# Forms that OTP 25 does not send, and others do.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("730470696e67", Atom("ping")),
        ("770470696e67", Atom("ping")),
        ("76000470696e67", Atom("ping")),
        ("7300", Atom("")),
        ("7303 6e696c", None),
        ("7704 74727565", True),
        ("760005 66616c7365", False),
        ("7301e9", Atom("é")),
        ("7702c3a9", Atom("é")),
        ("6200000007", 7),
        ("6e010007", 7),
        ("6e0000", 0),
        ("6f000000010107", -7),
        ("63" + b"1.50000000000000000000e+00".ljust(31, b"\0").hex(), 1.5),
        ("63" + b"-2.00000000000000000000e-03".ljust(31, b"\0").hex(), -0.002),
        ("6900000001 6101", (1,)),
        ("6b0000", []),
        ("6c00000000 6a", []),
        ("6c00000001 6101 6b00020203", [1, 2, 3]),
        ("6c00000001 6101 6c00000001 6102 6103", ImproperList((1,), ImproperList((2,), 3))),
        ("4d00000002 08 6869", "hi"),
        ("4d00000001 08 ff", b"\xff"),
        ("4d00000001 03 bf", Bitstring(b"\xa0", 3)),
        ("4d00000002 01 ffff", Bitstring(b"\xff\x80", 1)),
    ],
)
def test_other_forms_of_the_same_terms_are_taken(text, value):
    assert alike(read(text), value)


def test_the_same_bytes_are_two_atoms_in_the_two_encodings():
    assert read("6802 7302c3a9 7702c3a9") == (Atom("Ã©"), Atom("é"))


@pytest.mark.parametrize("text", ["6b0003666f6f", "6c00000001 6101 6b00026f6f"])
def test_a_charlist_is_a_list_of_numbers(text):
    assert type(read(text)) is list


def test_a_binary_is_text_if_it_is_utf_8_and_bytes_if_not():
    assert [read(f"6d0000000{len(raw)}{raw.hex()}") for raw in (b"ab", b"\xc3\xa9", b"\xc3", b"\xed\xa0\x80")] == [
        "ab",
        "é",
        b"\xc3",
        b"\xed\xa0\x80",
    ]


# What can only be kept.


def function(free=b"a\7", size=None, variables=1, module=NODE, old_index=b"a\1", pid=b"X" + NODE + bytes(12)):
    body = b"\2" + bytes(16) + bytes(4) + struct.pack(">I", variables) + module + old_index + b"b\0\0\0\1" + pid + free
    return b"p" + struct.pack(">I", len(body) + 4 if size is None else size) + body


KEPT = {
    "pid of OTP 25": ("pid", b"X" + NODE + bytes(12)),
    "old pid": ("pid", b"g" + OLD_NODE + bytes(9)),
    "port of OTP 25": ("port", b"x" + NODE + bytes(12)),
    "port of OTP 23": ("port", b"Y" + NODE + bytes(8)),
    "old port": ("port", b"f" + OLD_NODE + bytes(5)),
    "reference of OTP 25": ("reference", b"Z\0\3" + NODE + bytes(16)),
    "reference of OTP 22": ("reference", b"r\0\3" + OLD_NODE + bytes(13)),
    "old reference": ("reference", b"e" + OLD_NODE + bytes(5)),
    "&String.length/1": ("function", b"qw\x0dElixir.Stringw\6lengtha\1"),
    "fn -> 7 end": ("function", function()),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_term_of_a_node_is_data_that_goes_back_as_it_came(name):
    kind, raw = KEPT[name]
    value = decode(b"\x83" + raw)
    assert value == OpaqueTerm(kind, raw)
    assert not callable(value)
    assert encode([value]) == b"\x83l\0\0\0\1" + raw + b"j"
    assert erlang.binary_to_term(b"\x83" + raw) is not None, "erlang-py knows it too"


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_refused_when_it_is_cut_short_anywhere(name):
    raw = KEPT[name][1]
    for cut in range(1, len(raw)):
        with pytest.raises(BadPacket):
            decode(b"\x83" + raw[:cut])


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Xa\1" + bytes(12), "is an atom, not a term of the tag 97"),
        (b"Z\0\0" + NODE + bytes(4), "has 1 to 5 numbers, not 0"),
        (b"r\0\6" + NODE + bytes(25), "has 1 to 5 numbers, not 6"),
        (b"qw\1aw\1bb\0\0\0\1", "arity of an exported function"),
        (function(size=10), "does not have the size"),
        (function(old_index=b"j"), "part of the wrong type"),
        (function(pid=b"a\1"), "part of the wrong type"),
        (function(variables=1 << 31), "declares 2147483648 terms"),
        (function(module=b"m\0\0\0\1x"), "is an atom, not a term of the tag 109"),
    ],
)
def test_what_is_kept_has_to_be_whole(raw, text):
    with pytest.raises(BadPacket, match=text):
        decode(b"\x83" + raw)


@pytest.mark.parametrize(
    ("key", "kind"),
    [([1, 2], "list"), ([300], "list"), ({"a": 1}, "map"), ((1, [2]), "tuple"), (ImproperList(([],), 1), "list")],
    ids=repr,
)
def test_a_key_that_python_cannot_hash_is_kept(key, kind):
    raw = b"\x83t\0\0\0\1" + term(key) + term("value")
    ((found, value),) = decode(raw).items()
    assert (found, value) == (OpaqueTerm(kind, term(key)), "value")
    assert encode({found: value}) == raw
    assert decode(b"\x83" + found.etf) == key


# What is refused.


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("500000000a 00", "compression inside a term"),
        ("5200", "an atom of a cache"),
        ("7500000000", "a function in the form that OTP 23 has dropped"),
        ("7900", "a term that only the node that made it can read"),
    ],
)
def test_what_has_no_place_on_a_line_is_refused_by_name(text, what):
    with pytest.raises(UnsafeTerm, match=what):
        read(text)


@pytest.mark.parametrize(
    ("key", "other"), [(Atom("a"), "a"), (1, 1.0), (1, True), (0.0, -0.0), ((1, "x"), (1.0, Atom("x"))), ("k", "k")]
)
def test_two_keys_that_are_one_to_python_are_refused_and_none_is_lost(key, other):
    raw = b"\x83t\0\0\0\2" + term(key) + term(1) + term(other) + term(2)
    with pytest.raises(UnsafeTerm, match=r'because a key is there twice, as :a and "a", or 1 and 1\.0'):
        decode(raw)


def test_keys_of_one_hash_are_refused():
    modulus = (1 << 61) - 1
    keys = [number * modulus for number in range(1, 40)]
    with pytest.raises(UnsafeTerm, match="more than 32 keys have the same hash"):
        decode(encode(dict.fromkeys(keys)))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cut short"),
        (b"\x83", "cut short"),
        (b"\x82a\1", "begins with 131, and this payload with 130; do both ends have codec='etf'"),
        (b"\x83\0", "no term with the tag 0"),
        (b"\x83\xff", "no term with the tag 255"),
        (b"\x83a\1a", "1 bytes left over after the term"),
        (b"\x83m\xff\xff\xff\xffx", "declares 4294967295 bytes, and 1 are left"),
        (b"\x83l\xff\xff\xff\xffx", "declares 4294967295 terms, and 1 bytes are left"),
        (b"\x83i\x7f\xff\xff\xffx", "declares 2147483647 terms"),
        (b"\x83t\xff\xff\xff\xffx", "declares 8589934590 terms"),
        (b"\x83k\xff\xffx", "declares 65535 bytes"),
        (b"\x83d\xff\xffx", "declares 65535 bytes"),
        (b"\x83M\xff\xff\xff\xff\3x", "declares 4294967295 bytes"),
        (b"\x83l\0\0\0\0a\1", "a list without items has a tail"),
        (b"\x83M\0\0\0\0\3", "1 to 8 bits in its last byte, not 3 in 0 bytes"),
        (b"\x83M\0\0\0\1\0x", "not 0 in 1 bytes"),
        (b"\x83M\0\0\0\1\x09x", "not 9 in 1 bytes"),
        (b"\x83d\1\0" + 256 * b"x", "at most 255 characters, and this one 256"),
        (b"\x83w\1\xff", "name of an atom is no UTF-8"),
        (b"\x83F" + struct.pack(">d", float("nan")), "no float for nan"),
        (b"\x83F" + struct.pack(">d", float("-inf")), "no float for -inf"),
        (b"\x83c" + b"1.0e999".ljust(31, b"\0"), "no float for inf"),
        (b"\x83c" + b"nan".ljust(31, b"\0"), "old form is no number"),
        (b"\x83c" + b"1_0.0".ljust(31, b"\0"), "old form is no number"),
        (b"\x83c1.5", "declares 31 bytes"),
        (b"\x83n\1\7\7", "the sign of an integer is 0 or 1, not 7"),
    ],
)
def test_what_is_no_term_is_a_bad_packet_that_says_why(data, text):
    with pytest.raises(BadPacket, match=text):
        decode(data)


@pytest.mark.parametrize("name", PYTHON)
def test_a_recorded_term_is_refused_when_it_is_cut_short_anywhere(name):
    (data,) = [bytes.fromhex(vector["etf"]) for vector in recorded("terms.json") if vector["name"] == name]
    for cut in range(min(len(data), 2000)):
        with pytest.raises(BadPacket):
            decode(data[:cut])


# Limits of safe mode, and those that always hold.


def test_atoms_are_counted_over_the_whole_line():
    atoms = {}
    decode(encode([Atom(f"a{n}") for n in range(MAX_ATOMS - 1)]), atoms=atoms)
    assert decode(encode([Atom("last"), Atom("a7"), None, True, Atom("last")]), atoms=atoms)[0] == "last"
    with pytest.raises(UnsafeTerm, match="more than 4096 different atoms on one line; send data as text"):
        decode(encode(Atom("one more")), atoms=atoms)
    assert len(atoms) == MAX_ATOMS
    assert decode(encode([Atom("a7"), None]), atoms=atoms) == ["a7", None]


def test_an_atom_of_one_line_is_one_object():
    atoms = {}
    first, second = (decode(encode(Atom("ok")), atoms=atoms) for _ in range(2))
    assert first is second


def test_an_unsafe_line_takes_any_number_of_atoms_and_keeps_none():
    atoms = {}
    flood = [Atom(f"a{n}") for n in range(MAX_ATOMS + 10)]
    assert decode(encode(flood), safe=False, atoms=atoms) == flood
    assert atoms == {}


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        (b"h\1", b""),
        (b"i\0\0\0\1", b""),
        (b"l\0\0\0\1", b"j"),
        (b"l\0\0\0\1j", b""),
        (b"t\0\0\0\1a\1", b""),
        (b"t\0\0\0\1", b"a\1"),
    ],
)
@pytest.mark.parametrize("safe", [True, False])
def test_depth_is_bounded_in_both_modes(opened, closed, safe):
    def nested(depth):
        return b"\x83" + depth * opened + b"j" + depth * closed

    assert decode(nested(64), safe) is not None
    for depth in (65, 66, 100_000):
        with pytest.raises(UnsafeTerm, match="deeper than 64"):
            decode(nested(depth), safe)


def test_functions_count_for_depth():
    raw = b"a\7"
    for _ in range(65):
        raw = function(free=raw)
    with pytest.raises(UnsafeTerm, match="deeper than 64"):
        decode(b"\x83" + raw)


@pytest.mark.parametrize("head", [b"n\xff\0", b"o" + struct.pack(">I", INTEGER_SIZE) + b"\0"])
def test_an_integer_up_to_the_limit_is_taken(head):
    size = 255 if head[:1] == b"n" else INTEGER_SIZE
    assert decode(b"\x83" + head + size * b"\xff") == (1 << 8 * size) - 1


def test_what_is_taken_can_be_printed():
    assert len(str(decode(b"\x83o" + struct.pack(">I", INTEGER_SIZE) + b"\1" + INTEGER_SIZE * b"\xff"))) == 4300


def test_a_larger_integer_is_for_unsafe_mode():
    data = b"\x83o" + struct.pack(">I", INTEGER_SIZE + 1) + b"\0" + INTEGER_SIZE * b"\0" + b"\1"
    with pytest.raises(UnsafeTerm, match=f"has {INTEGER_SIZE + 1} bytes, and safe mode takes {INTEGER_SIZE}"):
        decode(data)
    assert decode(data, safe=False) == 1 << 8 * INTEGER_SIZE


def test_terms_are_counted(monkeypatch):
    monkeypatch.setattr(etf_decoder, "MAX_TERMS", 100)
    most = b"\x83l\0\0\0\x64" + 100 * b"j" + b"j"
    assert len(decode(most)) == 100
    more = b"\x83h\2a\1" + most[1:]
    with pytest.raises(UnsafeTerm, match="more than 100 terms; send less at once, or set safe=False here"):
        decode(more)
    assert len(decode(more, safe=False)[1]) == 100


def bombs():
    size = 16 * MEBIBYTE
    yield "empty lists", b"l" + struct.pack(">I", size - 8) + (size - 8) * b"j" + b"j"
    yield "empty lists in tuples", b"h\xff" + (size // 300) * (b"h\x02j" + b"j")
    yield "empty maps", b"l" + struct.pack(">I", size // 5 - 2) + (size // 5) * b"t\0\0\0\0" + b"j"
    yield "atoms", b"l" + struct.pack(">I", 5000) + b"".join(b"d\0\5%05x" % n for n in range(5000)) + b"j"
    yield "nested lists", (size // 5) * b"l\0\0\0\1"
    yield "nested tuples", (size // 2) * b"h\1"
    yield "nested maps", (size // 7) * b"t\0\0\0\1a\1"
    yield "keys of keys", 100 * b"t\0\0\0\1" + b"m\0\x80\0\0" + (size // 2) * b"x"
    yield "a list of 4 billion", b"l\xff\xff\xff\xff" + size * b"j"
    yield "a binary of 4 billion", b"m\xff\xff\xff\xff" + size * b"j"
    yield "a large integer", b"o" + struct.pack(">I", size - 8) + (size - 7) * b"\xff"


BOMBS = dict(bombs())


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounded_memory(name):
    data = b"\x83" + BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(data, atoms={})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * MEBIBYTE, f"{peak / MEBIBYTE:.0f} MiB"


def test_the_most_that_a_payload_can_become_is_bounded():
    """The worst that passes: as many terms as may come, the smallest that make the largest objects."""
    count = MAX_TERMS // 3
    item = b"t\0\0\0\1a\1j"
    data = b"\x83l" + struct.pack(">I", count) + count * item + b"j"
    tracemalloc.start()
    try:
        assert len(decode(data)) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * MEBIBYTE, f"{peak / MEBIBYTE:.0f} MiB"


# Anything at all.


def judged(data, **options):
    """A value that can be sent back, or a named error."""
    try:
        value = decode(data, **options)
    except ProtocolError:
        return
    assert alike(decode(encode(value, safe=False), safe=False), value)


@given(st.binary(max_size=80))
@example(b"w\3nil")
@settings(max_examples=500)
def test_any_bytes_are_judged(data):
    judged(b"\x83" + data)
    judged(data, safe=False)


@given(terms, st.data())
def test_a_term_with_a_wrong_byte_is_judged(value, data):
    raw = bytearray(encode(value))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    judged(bytes(raw))


@given(terms, st.data())
def test_a_term_that_is_cut_short_is_refused(value, data):
    raw = encode(value)
    with pytest.raises(BadPacket):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(terms, st.binary(min_size=1, max_size=9))
def test_a_term_that_goes_on_is_refused(value, tail):
    with pytest.raises(BadPacket, match="left over"):
        decode(encode(value) + tail)
