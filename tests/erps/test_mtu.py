"""test/mtu_test.exs of Erps 0.7.0: more than one packet of the network."""

from __future__ import annotations

from faces import LabClient, Notes
from injected import Echo

import erps_gevent as erps

DATA = bytes(10240)


def test_can_accept_a_call_of_size_bigger_than_the_mtu(house):
    """test/mtu_test.exs:53."""
    client = house.client(house.daemon(Echo, identifier="lab"))
    assert client.call(DATA) == DATA


def test_can_send_a_push_of_size_bigger_than_the_mtu(house):
    """test/mtu_test.exs:64."""
    notes, served = Notes(), Notes()
    house.client(house.daemon(Echo, served, identifier="lab"), notes, cls=LabClient).connect()
    erps.push(served.wait("server")[0], DATA)
    assert notes.wait("push") == [DATA]
