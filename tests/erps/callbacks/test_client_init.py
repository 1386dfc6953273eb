"""test/callbacks/client_init_test.exs of Erps 0.7.0."""

from __future__ import annotations

import pytest
from faces import Notes
from injected import Echo, started

import erps_gevent as erps


class Client(erps.Client):
    def init(self, notes, answer):
        self.notes = notes
        return answer

    def handle_push(self, message):
        self.notes(message)


def test_can_return_ok_state(plain_house):
    """test/callbacks/client_init_test.exs:38."""
    notes, served = Notes(), Notes()
    started(plain_house, Client, plain_house.daemon(Echo, served), notes, erps.Ok())
    erps.push(served.wait("server")[0], "ping")
    notes.wait("ping")


def test_can_just_ignore(plain_house):
    """test/callbacks/client_init_test.exs:50."""
    with pytest.raises(erps.StartIgnored):
        started(plain_house, Client, plain_house.daemon(Echo), Notes(), erps.Ignore())


def test_can_stop(plain_house):
    """test/callbacks/client_init_test.exs:55."""
    with pytest.raises(erps.StartError) as caught:
        started(plain_house, Client, plain_house.daemon(Echo), Notes(), erps.Stop("abnormal"))
    assert caught.value.reason == "abnormal"
