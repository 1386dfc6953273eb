"""test/dual_connection_test.exs of Erps 0.7.0."""

from __future__ import annotations

from faces import Notes
from injected import Deaf, Echo


def test_you_can_have_two_clients_connected_to_the_same_server(house):
    """test/dual_connection_test.exs:35. As upstream, "the same server" is the same daemon: each has its own process."""
    notes = Notes()
    daemon = house.daemon(Echo, notes)
    clients = [house.client(daemon, cls=Deaf) for _ in range(2)]
    assert [client.call("ping") for client in clients] == ["pong", "pong"]
    one, other = notes.of("server")
    assert one is not other
