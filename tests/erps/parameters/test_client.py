"""test/parameters/client_test.exs of Erps 0.7.0: what a client writes, seen by a plain listener.

Version and identifier are in the header of every packet, the hello and all that follow it.
"""

from __future__ import annotations

import gevent
import pytest
from ends import Scripted, got
from faces import PATIENCE

import erps_gevent as erps
from erps_gevent.transport.sockets import listen
from erps_gevent.wire.packet import KEEPALIVE, Framer, Stamp, Type
from erps_gevent.wire.session import ServerSession

# Upstream's payload is shorter than the 256 bytes below which nothing is deflated here, and nearly all of it is random.
PAYLOAD = {
    "payload": "payload",
    "loadpay": "fooled",
    "payday": "failed",
    "daycare": "duped",
    "rest": [f"{number * 7919}, foolish {number * number}" for number in range(200)],
}


class Ear(Scripted):
    """A server's end that keeps the frames as they came. It has welcomed its client."""

    def __init__(self, stream, identifier):
        super().__init__(stream, ServerSession(Stamp((0, 0, 0), identifier)))
        self.framer = Framer(1 << 20)
        self.frames = []
        self.hear(Type.HELLO)
        self.say(self.session.welcome(None, 1000))

    def read(self):
        chunk = self.stream.receive()
        if chunk is None:
            assert self.stream.wait_readable(PATIENCE), "nothing came"
            return True
        self.frames += self.framer.feed(chunk)
        self.unread += self.session.receive(chunk)
        assert self.session.error is None, self.session.error
        return bool(chunk)

    def packet(self, type_):
        """The frame of the next packet, which has to be of this type."""
        self.hear(type_)
        return self.frames[-1]


@pytest.fixture
def heard(plain_house):
    """Connects a client of this class, and returns it with the end that hears what it says."""
    open_ = []

    def connect(cls, **options):
        listener = listen(("127.0.0.1", 0))
        listener.settimeout(PATIENCE)
        open_.append(listener)
        client = plain_house.client(listener.getsockname(), cls=cls, **options)
        client.connect()
        stream = erps.Tcp().accept(*listener.accept(), PATIENCE)
        open_.append(stream)
        return client, Ear(stream, cls.class_options.get("identifier", ""))

    yield connect
    # Before the clients, whose bye nobody would read.
    for end in open_:
        end.close()


class ClientVersion(erps.Client, version="0.1.3"):
    pass


class ClientIdentifier(erps.Client, identifier="erpstest"):
    pass


class ClientCompressionLow(erps.Client, compressed=1):
    pass


class ClientCompressionHigh(erps.Client, compressed=9):
    pass


class ClientCompressionDefault(erps.Client, compressed=True):
    pass


class TestWhenTheClientIsVersioned:
    def test_the_cast_packet_is_branded_with_its_version(self, heard):
        """test/parameters/client_test.exs:51."""
        client, ear = heard(ClientVersion)
        client.cast("foo")
        assert ear.packet(Type.CAST).version == (0, 1, 3)
        assert ear.frames[0].version == (0, 1, 3)

    def test_the_call_packet_is_branded_with_its_version(self, heard):
        """test/parameters/client_test.exs:62."""
        client, ear = heard(ClientVersion)
        call = gevent.spawn(client.call, "foo")
        assert ear.packet(Type.CALL).version == (0, 1, 3)
        call.kill()


class TestWhenTheClientIsInstrumentedWithAnIdentifier:
    def test_the_cast_packet_is_branded_with_its_identifier(self, heard):
        """test/parameters/client_test.exs:89."""
        client, ear = heard(ClientIdentifier)
        client.cast("foo")
        assert ear.packet(Type.CAST).identifier == b"erpstest"
        assert ear.frames[0].identifier == b"erpstest"

    def test_the_call_packet_is_branded_with_its_version(self, heard):
        """test/parameters/client_test.exs:100. By that name upstream; it is about the identifier."""
        client, ear = heard(ClientIdentifier)
        call = gevent.spawn(client.call, "foo")
        assert ear.packet(Type.CALL).identifier == b"erpstest"
        call.kill()


class TestWhenTheClientIsInstrumentedWithCompression:
    @pytest.fixture
    def size(self, heard):
        """How long the payload of the cast is that a client of this class sends."""

        def size_of(cls):
            client, ear = heard(cls)
            client.cast(PAYLOAD)
            return len(ear.packet(Type.CAST).payload)

        return size_of

    def test_the_cast_packet_is_compressed(self, size):
        """test/parameters/client_test.exs:159."""
        assert size(ClientVersion) > size(ClientCompressionDefault)

    def test_the_cast_packet_can_have_varying_levels_of_compression(self, size):
        """test/parameters/client_test.exs:171."""
        assert size(ClientCompressionLow) > size(ClientCompressionHigh)


class TestWhenTheClientIsInstrumentedWithAKeepalive:
    def test_the_server_gets_a_keepalive(self, heard):
        """test/parameters/client_test.exs:201."""
        _, ear = heard(erps.Client, keepalive=0.05)
        assert got(ear.stream, len(KEEPALIVE)) == KEEPALIVE
