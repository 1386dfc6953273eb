"""test/multiverse_test.exs of Erps 0.7.0. A universe is compared by the number of the process at its root."""

from __future__ import annotations

import pytest
from faces import Notes, Parent, ended
from injected import started

import erps_gevent as erps
from erps_gevent import Daemon, DynamicSupervisor, Reply


class Server(erps.Server):
    def handle_call(self, request, from_):
        return Reply(erps.universe.current().serial)


class Client(erps.Client, forward_callers=True):
    def init(self, notes):
        notes("client universe", erps.universe.current())


@pytest.fixture
def here():
    """The universe of the test."""
    with erps.universe.fresh():
        yield erps.universe.current()


@pytest.fixture
def elsewhere():
    """A process in a universe of its own."""
    parent = Parent.start(True)
    yield parent
    erps.kill(parent)
    ended(parent)


def universes(house, daemon):
    """Of a client that is started here, and of its server."""
    notes = Notes()
    client = started(house, Client, Daemon.of(daemon), notes)
    return notes.of("client universe")[0].serial, client.call("server universe")


def test_servers_and_clients_get_instantiated_with_the_correct_callers_value(plain_house, here):
    """test/multiverse_test.exs:43."""
    daemon = plain_house.process(Server, forward_callers=True)
    assert universes(plain_house, daemon) == (here.serial, here.serial)


def test_servers_get_the_correct_callers_value_when_supervised(plain_house, here, elsewhere):
    """test/multiverse_test.exs:54."""
    supervisor = elsewhere.call(DynamicSupervisor.start_link)
    daemon = plain_house.process(Server, server_supervisor=supervisor, forward_callers=True)
    assert universes(plain_house, daemon) == (here.serial, here.serial)


def test_tcp_ip_can_be_a_wormhole_between_universes(plain_house, here, elsewhere):
    """test/multiverse_test.exs:74."""
    daemon = elsewhere.call(lambda: plain_house.process(Server, forward_callers=True))
    assert universes(plain_house, daemon) == (here.serial, elsewhere.serial)
