"""test/packet/decode_test.exs of Erps 0.7.0.

Upstream one function decodes a packet and filters it; here a Framer cuts it out and a session judges it. Version and
identifier are judged at the hello, the first packet, once for the whole line.
"""

from __future__ import annotations

import pytest
from dialogues import client, pair, take

from erps_gevent.errors import BadPacket, IdentifierMismatch, UnsafeTerm, VersionMismatch
from erps_gevent.wire.packet import KEEPALIVE, Framer, Stamp, Type
from erps_gevent.wire.requirement import parse_versions
from erps_gevent.wire.session import ClientSession, ServerSession

UNKNOWN_TAG = bytes.fromhex("82f6 d90539 80")  # [null, 1337([])]


def decoded(data):
    """The frames of `data`, in which there is nothing wrong."""
    framer = Framer(1024)
    frames = framer.feed(data)
    assert framer.error is None
    return frames


def hello(version=(0, 0, 0), identifier=""):
    return ClientSession(Stamp(version, identifier)).hello()


def judged(data, identifier="", versions=None):
    """The server's end, after it has received `data`."""
    server = ServerSession(Stamp((0, 0, 0), identifier), versions and parse_versions(versions))
    server.receive(data)
    return server


def test_the_most_basic_decode_works():
    """test/packet/decode_test.exs:24."""
    caller, server = pair()
    (packet,) = take(server, caller.call([], None)[1])
    assert (packet.type, packet.value) == (Type.CALL, [])


def test_identifiers_decode():
    """test/packet/decode_test.exs:31."""
    (frame,) = decoded(hello(identifier="foo"))
    assert frame.identifier == b"foo"


def test_matched_identifiers_succeed():
    """test/packet/decode_test.exs:36."""
    assert judged(hello(identifier="foo"), identifier="foo").error is None


def test_mismatched_identifiers_fail():
    """test/packet/decode_test.exs:41."""
    error = judged(hello(identifier="foo"), identifier="bar").error
    assert isinstance(error, IdentifierMismatch)
    assert str(error).startswith("the client's identifier is 'foo' and this server's is 'bar'; give both the same")


def test_versions_decode():
    """test/packet/decode_test.exs:50."""
    (frame,) = decoded(hello((0, 1, 0)))
    assert frame.version == (0, 1, 0)


def test_matched_versions_succeed():
    """test/packet/decode_test.exs:55."""
    assert judged(hello((0, 1, 0)), versions="== 0.1.0").error is None


def test_mismatched_versions_fail():
    """test/packet/decode_test.exs:60."""
    error = judged(hello((0, 2, 0)), versions="== 0.1.0").error
    assert isinstance(error, VersionMismatch)
    assert str(error).startswith("the client's version is 0.2.0 and this server serves == 0.1.0; ")


def test_attempting_to_add_an_unknown_atom_fails_in_safe_mode():
    """test/packet/decode_test.exs:69. CBOR has no atoms: what is unknown and could mean anything there is a tag.

    In the dialect `etf` an atom is text of its own here, in no table that it could fill: any is taken, up to a count.
    """
    caller, server = pair()
    server.receive(caller._stamp.frame(Type.CAST, UNKNOWN_TAG))
    assert isinstance(server.error, UnsafeTerm)
    caller, server = pair(safe=False)
    (packet,) = take(server, caller._stamp.frame(Type.CAST, UNKNOWN_TAG))
    assert packet.value.tag == 1337


def test_unknown_codes_result_in_a_error():
    """test/packet/decode_test.exs:74."""
    packet = client().hello()
    framer = Framer(1024)
    assert framer.feed(packet[:8] + b"\x07" + packet[9:]) == []
    assert isinstance(framer.error, BadPacket)
    assert str(framer.error) == "there is no packet of type 7"


def test_a_single_zero_byte_is_a_keepalive_packet():
    """test/packet/decode_test.exs:79. The zero byte comes after "erps" and a size of zero, which are always there."""
    (frame,) = decoded(KEEPALIVE)
    assert (frame.type, frame.payload) == (Type.KEEPALIVE, b"")
    with pytest.raises(BadPacket, match='starts with "erps"'):
        framer = Framer(1024)
        framer.feed(b"\0")
        framer.eof()
