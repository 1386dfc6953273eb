"""test/otp_test.exs of Erps 0.7.0: both ends under supervisors, and killed.

Upstream every end of a line is an error in the log, and a client ends with its line. Here the log has it at info, and a
client heals in its place unless it is told otherwise: these do not.
"""

from __future__ import annotations

import logging

import pytest
from faces import Notes, ended, free_port
from injected import down, started

import erps_gevent as erps
from erps_gevent import Daemon, DynamicSupervisor, Supervisor


class Server(erps.Server):
    def init(self, notes):
        notes("server", self.pid)


class Client(erps.Client, heal=False, hub="here"):
    def init(self, notes):
        self.notes = notes

    def handle_connect(self, peer):
        self.notes("connect")

    def handle_push(self, message):
        self.notes("push", message)


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def supervisor():
    """Starts a DynamicSupervisor, or a Supervisor of these children; kills it at the end."""
    pids = []

    def start(children=None):
        if children is None:
            pids.append(DynamicSupervisor.start_link())
        else:
            pids.append(Supervisor.start_link(children, strategy="one_for_one"))
        return pids[-1]

    yield start
    for pid in reversed(pids):
        erps.kill(pid)
        ended(pid)


@pytest.fixture
def supervised(plain_house, notes, supervisor):
    """The pids of a client and of its server, each under a supervisor."""
    daemon = plain_house.daemon(Server, notes, server_supervisor=supervisor())
    spec = Client.child_spec(daemon.address, notes, transport=erps.Tcp())
    client = DynamicSupervisor.start_child(supervisor(), spec)
    notes.wait("connect")
    return client, notes.of("server")[0]


def goes_on(notes):
    """There is a new line, over which the new server reaches the new client."""
    notes.wait("connect", 2)
    erps.push(notes.wait("server", 2)[1], "foo")
    assert notes.wait("push") == ["foo"]


class TestWhenYouKillTheClient:
    def test_the_server_dies(self, plain_house, notes, supervisor, caplog):
        """test/otp_test.exs:48. Contradicts a fix: the reason is a shutdown and the log has it at info."""
        caplog.set_level(logging.INFO, logger="erps_gevent")
        daemon = plain_house.daemon(Server, notes, server_supervisor=supervisor())
        client = started(plain_house, Client, daemon, notes)
        notes.wait("connect")
        ends = down(client), down(notes.of("server")[0])
        erps.kill(client)
        assert [end() for end in ends] == [erps.KILLED, erps.Shutdown("disconnected")]
        of_server = [record for record in caplog.records if "of 127.0.0.1" in record.getMessage()]
        assert {record.levelname for record in of_server} == {"INFO"}


class TestWhenYouKillTheServer:
    def test_client_will_get_killed(self, plain_house, notes, supervisor):
        """test/otp_test.exs:73."""
        daemon = plain_house.daemon(Server, notes, server_supervisor=supervisor())
        client = started(plain_house, Client, daemon, notes)
        notes.wait("connect")
        (server,) = notes.of("server")
        ends = down(server), down(client)
        erps.kill(server)
        assert [end() for end in ends] == [erps.KILLED, "disconnected"]


class TestASupervisedServerClientPair:
    def test_has_the_client_reconnect_if_it_dies(self, supervised, notes):
        """test/otp_test.exs:99."""
        client, server = supervised
        ends = down(client), down(server)
        erps.kill(client)
        assert [end() for end in ends] == [erps.KILLED, erps.Shutdown("disconnected")]
        goes_on(notes)

    def test_has_the_server_reconnect_if_it_dies(self, supervised, notes):
        """test/otp_test.exs:132."""
        client, server = supervised
        ends = down(server), down(client)
        erps.kill(server)
        assert [end() for end in ends] == [erps.KILLED, "disconnected"]
        goes_on(notes)


class TestCustomSupervisorModuleStrategyWorks:
    def test_client_will_get_killed(self, plain_house, notes, supervisor):
        """test/otp_test.exs:169. By that name upstream: what it tries is a supervisor of the user's own."""
        connections = supervisor()
        started_children = []

        class Custom:
            def start_child(self, child_spec):
                started_children.append(DynamicSupervisor.start_child(connections, child_spec))
                return started_children[-1]

        daemon = plain_house.daemon(Server, notes, server_supervisor=Custom())
        started(plain_house, Client, daemon, notes)
        notes.wait("connect")
        assert started_children == notes.of("server")
        erps.push(started_children[0], "foo")
        assert notes.wait("push") == ["foo"]


def test_supervising_the_daemon(plain_house, notes, supervisor):
    """test/otp_test.exs:183."""
    address = ("127.0.0.1", free_port())
    supervisor([Daemon.child_spec(address, Server, notes, transport=erps.Tcp(), server_supervisor=supervisor())])
    started(plain_house, Client, address, notes)
    notes.wait("connect")
    erps.push(notes.of("server")[0], "foo")
    assert notes.wait("push") == ["foo"]
