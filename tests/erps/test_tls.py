"""test/tls_test.exs of Erps 0.7.0."""

from __future__ import annotations

import pytest
from faces import House, wire
from injected import Deaf, Echo

import erps_gevent as erps


@pytest.fixture
def tls_house(certs):
    house = House(wire("tls1.3", certs))
    yield house
    house.close()


def test_an_erps_system_can_make_a_connection_via_tls(tls_house):
    """test/tls_test.exs:54."""
    daemon = tls_house.daemon(Echo)
    client = tls_house.client(daemon, cls=Deaf)
    assert client.call("ping") == "pong"
    assert (client.peer.common_name, daemon.servers[0].peer.common_name) == ("server", "alice")


def test_tls_options_should_be_settable_at_the_server_layer(tls_house, certs):
    """test/tls_test.exs:90. Upstream the daemon accepts in clear and its server asks for TLS then.

    Here who listens decides, once, before the first byte: a server with its own idea of TLS brings its daemon along.
    """

    class OwnTls(erps.Daemon):
        def __init__(self, listener, server):
            super().__init__(listener, server, transport=erps.Tls(**certs.identity("server")))

    daemon = OwnTls(("127.0.0.1", 0), Echo)
    tls_house.daemons.append(daemon)
    daemon.start()
    assert tls_house.client(daemon, cls=Deaf).call("ping") == "pong"
