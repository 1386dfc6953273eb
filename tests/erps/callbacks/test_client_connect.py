"""test/callbacks/client_connect_test.exs of Erps 0.7.0."""

from __future__ import annotations

from faces import Notes
from injected import Client, Echo


def test_is_triggered_on_connection(plain_house):
    """test/callbacks/client_connect_test.exs:34. What it is given is who the server is, and not the socket."""
    notes = Notes()
    daemon = plain_house.daemon(Echo)
    plain_house.client(daemon, notes, None, cls=Client).connect()
    (peer,) = notes.wait("connect")
    assert peer.address == daemon.address
