"""test/erps_test.exs of Erps 0.7.0."""

from __future__ import annotations

from faces import Notes
from injected import Deaf

import erps_gevent as erps
from erps_gevent import Reply


class Server(erps.Server):
    def init(self, notes):
        self.state = "waiting"
        notes("server", self.pid)

    def handle_call(self, request, from_):
        return Reply("pong" if request == "ping" else self.state)

    def handle_cast(self, request):
        self.state = "casted"


def test_can_accept_a_call(house):
    """test/erps_test.exs:52."""
    client = house.client(house.daemon(Server, Notes()), cls=Deaf)
    assert client.call("ping") == "pong"


def test_can_accept_a_mutating_cast(house):
    """test/erps_test.exs:59."""
    notes = Notes()
    client = house.client(house.daemon(Server, notes), cls=Deaf)
    client.connect()
    (server,) = notes.wait("server")
    assert server.call("state") == "waiting"
    client.cast("cast")
    assert client.call("state") == "casted"
    assert server.call("state") == "casted"


def test_with_a_string_dns_name(house):
    """test/erps_test.exs:87."""
    daemon = house.daemon(Server, Notes())
    client = house.client(("localhost", daemon.server_port), cls=Deaf)
    assert client.call("ping") == "pong"
