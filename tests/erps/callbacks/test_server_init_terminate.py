"""test/callbacks/server_init_terminate_test.exs of Erps 0.7.0."""

from __future__ import annotations

import pytest
from faces import Notes, ended

import erps_gevent as erps
from erps_gevent import NORMAL, Continue, Ignore, Ok, Reply, Stop


class Server(erps.Server):
    def init(self, notes, answer):
        self.notes = notes
        return answer

    def handle_call(self, request, from_):
        self.notes(request)
        return Reply("ok")

    def handle_cast(self, request):
        return Stop(NORMAL)

    def handle_continue(self, argument):
        self.notes(argument)

    def terminate(self, reason):
        self.notes("terminate", reason)


def test_can_return_ok_state():
    """test/callbacks/server_init_terminate_test.exs:53."""
    notes = Notes()
    server = Server.start_link(notes, Ok())
    assert server.call("ping") == "ok"
    assert notes.all == [("ping", None)]
    erps.stop(server)


def test_can_be_sent_into_continue_from_init():
    """test/callbacks/server_init_terminate_test.exs:63."""
    notes = Notes()
    server = Server.start_link(notes, Ok(then=Continue("continued")))
    assert server.call("ping") == "ok"
    assert notes.all == [("continued", None), ("ping", None)]
    erps.stop(server)


def test_server_can_be_sent_into_ignore_from_init():
    """test/callbacks/server_init_terminate_test.exs:74."""
    with pytest.raises(erps.StartIgnored):
        Server.start_link(Notes(), Ignore())


def test_server_can_be_stopped_by_init():
    """test/callbacks/server_init_terminate_test.exs:81."""
    with pytest.raises(erps.StartError) as caught:
        Server.start_link(Notes(), Stop("foo"))
    assert caught.value.reason == "foo"


def test_traps_a_termination_from_a_stop_cast_result():
    """test/callbacks/server_init_terminate_test.exs:90."""
    notes = Notes()
    server = Server.start(notes, Ok())
    server.cast("stop")
    assert ended(server) is NORMAL
    assert notes.all == [("terminate", NORMAL)]
