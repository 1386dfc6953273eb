"""Erlang terms that Python has no value for behave as values: equal, hashable, copied, pickled."""

from __future__ import annotations

import copy
import pickle

import pytest

import erps_gevent
from erps_gevent.errors import ConfigError
from erps_gevent.wire.etf_types import Atom, Bitstring, ImproperList, OpaqueTerm, binary

VALUES = [Atom("ok"), Bitstring(b"\xa0", 3), ImproperList((1, 2), 3), OpaqueTerm("pid", b"pid")]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_term_is_a_value(value):
    again = pickle.loads(pickle.dumps(value))
    for other in (again, copy.deepcopy(value)):
        assert (other, type(other), hash(other)) == (value, type(value), hash(value))


@pytest.mark.parametrize("name", ["Atom", "Bitstring", "ImproperList", "OpaqueTerm", "binary"])
def test_the_terms_are_public(name):
    assert name in erps_gevent.__all__


def test_an_atom_is_the_text_of_its_name_and_shows_that_it_is_an_atom():
    atom = Atom("add")
    assert atom == "add"
    assert {atom: 1}["add"] == 1
    assert repr(atom) == "Atom('add')"
    assert f"{atom}" == "add"
    match (atom, 3):
        case ("add", int(n)):
            assert n == 3
        case other:
            pytest.fail(f"{other} was not matched")


def test_an_opaque_term_cannot_be_called():
    function = OpaqueTerm("function", b"bytes")
    assert not callable(function)
    assert repr(function) == "<function of Erlang's, 5 bytes>"


@pytest.mark.parametrize(
    ("data", "bits"), [(b"", 3), ("a", 3), (b"\xa0", 0), (b"\xa0", 8), (b"\xa0", True), (b"\xa0", 3.0)]
)
def test_a_bitstring_has_a_last_byte_of_one_to_seven_bits(data, bits):
    with pytest.raises(ConfigError, match="whole bytes are bytes"):
        Bitstring(data, bits)


def test_the_bits_that_do_not_count_are_zero():
    with pytest.raises(ConfigError, match="more than 3 bits; set the others to 0"):
        Bitstring(b"\xb0", 3)


@pytest.mark.parametrize(("items", "tail"), [((), 1), ([1], 2), ((1,), [2]), ((1,), [])])
def test_an_improper_list_has_items_and_a_tail_that_is_no_list(items, tail):
    with pytest.raises(ConfigError, match="others are list"):
        ImproperList(items, tail)


@pytest.mark.parametrize("data", [b"plain", "grüße".encode(), b"", b"\xff\0"])
def test_binary_gives_the_bytes_of_what_arrived(data):
    try:
        arrived = data.decode()
    except UnicodeDecodeError:
        arrived = data
    assert binary(arrived) == data


@pytest.mark.parametrize("value", [Atom("ok"), None, 1, [1]], ids=repr)
def test_binary_refuses_what_was_no_binary(value):
    with pytest.raises(TypeError, match=f"not as {type(value).__name__}"):
        binary(value)
