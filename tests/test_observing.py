"""Observed calls: what an observer is told of a call, from its beginning to each of its outcomes."""

from __future__ import annotations

import gevent
import pytest
from faces import PATIENCE, Gate, Lab, until
from support import MS

import erps_gevent as erps
from erps_gevent import NoReply, Reply, Stop, lines
from erps_gevent.server_connection import ServerConnection


class Watcher:
    """Keeps what it is told."""

    def __init__(self):
        self.running = []
        self.over = []

    def began(self, call):
        self.running.append(call)

    def ended(self, call):
        self.over.append(call)

    def outcome(self, count=1):
        until(lambda: len(self.over) >= count, "the outcome of a call")
        return self.over[-1].outcome


@pytest.fixture
def watcher():
    return Watcher()


@pytest.fixture
def ask(plain_house, watcher):
    """Ask a server with the acts given, whose calls are observed; a client that fails returns its error."""

    def begin(acts=None, **options):
        daemon = erps.Daemon(("127.0.0.1", 0), Lab, acts or {}, transport=plain_house.wire.server, **options)
        daemon.hosted(observer=watcher)
        plain_house.daemons.append(daemon)
        daemon.start()
        client = plain_house.client(daemon)

        def ask(*request, timeout=PATIENCE):
            try:
                return client.call(request, timeout=timeout)
            except erps.ErpsError as error:
                return error

        return ask

    return begin


def test_a_call_is_told_with_its_peer_its_request_its_outcome_and_its_time(ask, watcher):
    assert ask()("echo", 1) == 1
    assert watcher.outcome() == "reply"
    (call,) = watcher.running
    assert watcher.over == [call]
    assert call.request == ("echo", 1)
    assert call.peer.address[0] == "127.0.0.1"
    assert 0 < call.seconds < PATIENCE


def test_an_error_reply_is_told_with_its_kind(ask, watcher):
    assert isinstance(ask()("nonsense"), erps.ErrorReply)
    assert watcher.outcome() == "error:unknown"


def test_a_reply_that_cannot_be_sent_is_an_exit(ask, watcher):
    assert isinstance(ask({"odd": lambda *_: Reply(object())})("odd"), erps.ServerExit)
    assert watcher.outcome() == "exit:EncodeError"


def test_a_call_that_ends_its_server_has_ended(ask, watcher):
    assert isinstance(ask({"leave": lambda *_: Stop("tired")})("leave"), erps.ServerExit)
    assert watcher.outcome() in ("ended", "exit:ServerExit")


def test_an_answer_that_nobody_waits_for_is_dropped(plain_house, ask, watcher, monkeypatch):
    monkeypatch.setattr(lines, "LOOK_EVERY", 5 * MS)
    gate = Gate()
    call = ask({"gate": gate})
    asked = gevent.spawn(call, "gate")
    assert gate.entered.wait(PATIENCE)
    asked.kill()
    until(lambda: plain_house.daemons[0].servers[0].pending == 0)
    gate.open()
    assert watcher.outcome() == "dropped"


def test_a_deferred_reply_is_told_when_it_is_given(ask, watcher):
    def later(server, from_):
        gevent.spawn(from_.reply, "late")
        return NoReply()

    assert ask({"later": later})("later") == "late"
    assert watcher.outcome() == "reply"


def test_it_is_the_same_for_a_line_to_erps_0_7(plain_house, watcher):
    daemon = erps.Daemon(("127.0.0.1", 0), Lab, transport=plain_house.wire.server, codec="etf", pacing=0)
    daemon.hosted(observer=watcher)
    plain_house.daemons.append(daemon)
    daemon.start()
    client = plain_house.client(daemon, codec="etf", pacing=0)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert watcher.outcome() == "reply"


def test_who_observes_nothing_has_the_plain_connection(plain_house):
    daemon = plain_house.daemon()
    plain_house.client(daemon).wait_connected(timeout=PATIENCE)
    assert [type(connection) for connection in daemon._lines.connections()] == [ServerConnection]
