"""test/callbacks/push_test.exs of Erps 0.7.0."""

from __future__ import annotations

from faces import LabClient, Notes
from injected import Echo


def test_servers_respond_when_sent_a_push_signal(plain_house):
    """test/callbacks/push_test.exs:27."""
    notes = Notes()
    daemon = plain_house.daemon(Echo, identifier="lab")
    plain_house.client(daemon, notes, cls=LabClient).connect()
    notes.wait("connect")
    assert daemon.broadcast("push") == 1
    assert notes.wait("push") == ["push"]
