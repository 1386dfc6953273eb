"""test/parameters/server_test.exs of Erps 0.7.0: what a server lets in, tried from a plain socket.

Upstream a packet that is not let in is answered with an error, and the server never reads again although it lives on
(F4). Here the first packet decides, its refusal is an error packet that says why, and the line is closed after it.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ends import Scripted
from faces import Notes, ended

import erps_gevent as erps
from erps_gevent.transport.address import Peer
from erps_gevent.transport.sockets import plain
from erps_gevent.transport.tcp import Stream
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.refusals import Code
from erps_gevent.wire.session import ClientSession

PING = bytes.fromhex("82f6 6470696e67")  # [null, "ping"]
UNKNOWN_TAG = bytes.fromhex("82f6 d90539 80")  # [null, 1337([])], of which safe mode knows nothing


class Pinged(erps.Server):
    def init(self, notes):
        self.notes = notes
        notes("server", self.pid)

    def handle_cast(self, request):
        self.notes("pong", request)


class ServerVersion(Pinged, versions="~> 0.1.3"):
    pass


class ServerIdentifier(Pinged, identifier="foobar"):
    pass


class ServerUnSafe(Pinged, safe=False):
    pass


@pytest.fixture
def say_hello(plain_house):
    """Connects to a daemon of this class with a hello under these names."""

    streams = []

    def connect(server, version=(0, 0, 0), identifier=""):
        notes = Notes()
        sock = plain_house.raw(plain_house.daemon(server, notes))
        stamp = Stamp(version, identifier)
        client = Scripted(Stream(plain(sock), Peer("server")), ClientSession(stamp))
        streams.append(client.stream)
        client.say(client.session.hello())
        return SimpleNamespace(client=client, notes=notes, stamp=stamp)

    yield connect
    for stream in streams:
        stream.close()


def let_in(line):
    """It is welcomed, and its cast arrives."""
    line.client.hear(Type.WELCOME)
    line.client.say(line.client.session.cast("ping"))
    assert line.notes.wait("pong") == ["ping"]


def refused(line, code):
    """It hears an error packet, and then the end; no server was started."""
    error = line.client.hear(Type.ERROR)
    assert (error.ref, error.value.code) == (None, code)
    assert line.client.hears_the_end()
    assert line.notes.all == []


def test_a_properly_versioned_packet_gets_accepted(say_hello):
    """test/parameters/server_test.exs:26."""
    let_in(say_hello(ServerVersion, (0, 1, 3)))


def test_an_unversioned_packet_gets_rejected(say_hello):
    """test/parameters/server_test.exs:43. Contradicts a fix: the line is closed."""
    refused(say_hello(ServerVersion), Code.VERSION)


def test_an_old_version_packet_gets_rejected(say_hello):
    """test/parameters/server_test.exs:61. Contradicts a fix: the line is closed."""
    refused(say_hello(ServerVersion, (0, 0, 3)), Code.VERSION)


def test_an_incompatibly_versioned_packet_gets_rejected(say_hello):
    """test/parameters/server_test.exs:81. Contradicts a fix: the line is closed."""
    refused(say_hello(ServerVersion, (2, 1, 3)), Code.VERSION)


def test_a_properly_identified_packet_gets_accepted(say_hello):
    """test/parameters/server_test.exs:118."""
    let_in(say_hello(ServerIdentifier, identifier="foobar"))


def test_an_unidentified_packet_gets_rejected(say_hello):
    """test/parameters/server_test.exs:135. Contradicts a fix: the line is closed."""
    refused(say_hello(ServerIdentifier), Code.IDENTIFIER)


def test_an_misidentified_packet_gets_rejected(say_hello):
    """test/parameters/server_test.exs:155. Contradicts a fix: the line is closed."""
    refused(say_hello(ServerIdentifier, identifier="barquux"), Code.IDENTIFIER)


def test_sending_a_safe_payload_succeeds(say_hello):
    """test/parameters/server_test.exs:233."""
    line = say_hello(Pinged)
    line.client.hear(Type.WELCOME)
    line.client.say(line.stamp.frame(Type.CAST, PING))
    assert line.notes.wait("pong") == ["ping"]


def test_sending_an_unsafe_payload_fails(say_hello):
    """test/parameters/server_test.exs:246. The server is torched as upstream; the client is told why."""
    line = say_hello(Pinged)
    line.client.hear(Type.WELCOME)
    (server,) = line.notes.of("server")
    line.client.say(line.stamp.frame(Type.CAST, UNKNOWN_TAG))
    assert line.client.hear(Type.ERROR).value.code == Code.UNSAFE
    assert line.client.hears_the_end()
    assert ended(server) in (erps.Shutdown("disconnected"), erps.NOPROC)
    assert line.notes.of("pong") == []


def test_sending_an_unsafe_payload_succeeds(say_hello):
    """test/parameters/server_test.exs:265."""
    line = say_hello(ServerUnSafe)
    line.client.hear(Type.WELCOME)
    line.client.say(line.stamp.frame(Type.CAST, UNKNOWN_TAG))
    (tag,) = line.notes.wait("pong")
    assert (tag.tag, list(tag.value)) == (1337, [])
