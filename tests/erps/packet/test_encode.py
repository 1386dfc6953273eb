"""test/packet/encode_test.exs of Erps 0.7.0: what one end encodes the other one decodes."""

from __future__ import annotations

import pytest
from dialogues import pair, take

from erps_gevent.errors import ErrorReply
from erps_gevent.wire.packet import KEEPALIVE, Framer, Stamp, Type
from erps_gevent.wire.refusals import error_of, refusal_of
from erps_gevent.wire.session import ClientSession

# Upstream's payload is shorter than the 256 bytes below which nothing is deflated here, and nearly all of it is random.
PAYLOAD = {
    "payload": "payload",
    "loadpay": "fooled",
    "payday": "failed",
    "daycare": "duped",
    "rest": [f"{number * 7919}, foolish {number * number}" for number in range(200)],
}


@pytest.fixture
def line():
    """Both ends of an open dialogue, on which the call 1 was made."""
    client, server = pair()
    take(server, client.call("first", None)[1])
    return client, server


def frame_of(data):
    (frame,) = Framer(1024).feed(data)
    return frame


def test_a_very_basic_call_is_encoded(line):
    """test/packet/encode_test.exs, "when encoding a packet"."""
    client, server = line
    (packet,) = take(server, client.call("foobar", None)[1])
    assert (packet.type, packet.ref, packet.value) == (Type.CALL, 2, "foobar")


def test_a_very_basic_cast_is_encoded(line):
    """test/packet/encode_test.exs, "when encoding a packet"."""
    client, server = line
    (packet,) = take(server, client.cast("foobar"))
    assert (packet.type, packet.value) == (Type.CAST, "foobar")


def test_a_very_basic_error_is_encoded(line):
    """test/packet/encode_test.exs, "when encoding a packet". It has a kind, and says which call it answers."""
    client, server = line
    (packet,) = take(client, server.refusal(1, refusal_of(ErrorReply("foo", "foobar"))))
    assert (packet.type, packet.ref) == (Type.ERROR, 1)
    assert str(error_of(packet.value)) == "foo: foobar"


def test_a_very_basic_response_is_encoded(line):
    """test/packet/encode_test.exs, "when encoding a packet"."""
    client, server = line
    (packet,) = take(client, server.reply(1, "foobar"))
    assert (packet.type, packet.ref, packet.value) == (Type.REPLY, 1, "foobar")


def test_a_very_basic_push_is_encoded(line):
    """test/packet/encode_test.exs, "when encoding a packet"."""
    client, server = line
    (packet,) = take(client, server.push("foobar"))
    assert (packet.type, packet.value) == (Type.PUSH, "foobar")


def test_a_keepalive_is_encoded(line):
    """test/packet/encode_test.exs:54."""
    client, server = line
    data = client.keepalive()
    assert data == KEEPALIVE == b"erps\0\0\0\0\0"
    (packet,) = take(server, data)
    assert packet.type is Type.KEEPALIVE


def test_version_is_encoded():
    """test/packet/encode_test.exs, "the component"."""
    assert frame_of(ClientSession(Stamp((1, 3, 4), "")).hello()).version == (1, 3, 4)


def test_identifier_is_encoded():
    """test/packet/encode_test.exs, "the component"."""
    assert frame_of(ClientSession(Stamp((1, 3, 4), "identifier")).hello()).identifier == b"identifier"


def call_at(compressed):
    """The packet of a call with PAYLOAD, which arrives as it was."""
    client, server = pair(compressed=compressed)
    data = client.call(PAYLOAD, None)[1]
    (packet,) = take(server, data)
    assert packet.value == PAYLOAD
    return data


def test_at_the_default_level_it_s_smaller():
    """test/packet/encode_test.exs:87."""
    assert len(call_at(False)) > len(call_at(True))


def test_at_the_highest_level_it_s_also_small():
    """test/packet/encode_test.exs:99."""
    assert len(call_at(1)) > len(call_at(9))
