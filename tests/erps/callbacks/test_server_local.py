"""test/callbacks/server_local_test.exs of Erps 0.7.0: a server that was started without a daemon."""

from __future__ import annotations

from typing import NamedTuple

import gevent
import pytest
from faces import PATIENCE, Notes, ended
from injected import Answers, Server, down

import erps_gevent as erps
from erps_gevent import NORMAL, Continue, NoReply, Reply, Stop


class Local(NamedTuple):
    pid: erps.Pid
    notes: Notes
    answers: Answers


@pytest.fixture
def server():
    notes, answers = Notes(), Answers()
    pid = Server.start(notes, answers)
    yield Local(pid, notes, answers)
    if pid.is_alive():
        erps.stop(pid)


def calling(server):
    """A greenlet that calls "foo"; the handler waits for its answer."""
    caller = gevent.spawn(server.pid.call, "foo")
    ((_, request),) = server.notes.wait("called")
    assert request == "foo"
    return caller


def test_a_local_client_can_also_be_returned_the_call_result(server):
    """test/callbacks/server_local_test.exs:67."""
    changed = Notes()
    caller = calling(server)
    server.answers.put((changed, Reply("foo")))
    assert caller.get(timeout=PATIENCE) == "foo"
    server.pid.call("ping")
    assert changed.all == [("ping", None)]


def test_a_local_client_can_send_the_server_into_a_continuation(server):
    """test/callbacks/server_local_test.exs:76."""
    changed = Notes()
    caller = calling(server)
    server.answers.put((changed, Reply("foo", then=Continue("continued"))))
    assert caller.get(timeout=PATIENCE) == "foo"
    assert changed.wait("continue") == ["continued"]


def test_a_local_client_can_send_the_server_into_a_noreply(server):
    """test/callbacks/server_local_test.exs:84. The reply comes from outside of the server."""
    changed = Notes()
    caller = calling(server)
    server.answers.put((changed, NoReply()))
    server.notes.of("called")[0][0].reply("foo")
    assert caller.get(timeout=PATIENCE) == "foo"
    server.pid.call("ping")
    assert changed.all == [("ping", None)]


def test_a_local_client_can_send_the_server_into_a_noreply_with_a_continuation(server):
    """test/callbacks/server_local_test.exs:99."""
    changed = Notes()
    caller = calling(server)
    server.answers.put((changed, NoReply(then=Continue("continued"))))
    erps.reply(server.notes.of("called")[0][0], "foo")
    assert caller.get(timeout=PATIENCE) == "foo"
    assert changed.wait("continue") == ["continued"]


def test_a_local_client_can_stop_the_server_with_reply(server):
    """test/callbacks/server_local_test.exs:113."""
    end = down(server.pid)
    caller = calling(server)
    server.answers.put((server.notes, Stop(NORMAL, reply="foo")))
    assert caller.get(timeout=PATIENCE) == "foo"
    assert end() is NORMAL


def test_a_local_client_can_stop_the_server_without_reply(server):
    """test/callbacks/server_local_test.exs:123."""
    end = down(server.pid)
    caller = calling(server)
    server.answers.put((server.notes, Stop(NORMAL)))
    with pytest.raises(erps.ServerExit) as caught:
        caller.get(timeout=PATIENCE)
    assert caught.value.reason is NORMAL
    assert end() is NORMAL


def test_a_local_client_can_send_a_cast(server):
    """test/callbacks/server_local_test.exs:139."""
    changed = Notes()
    server.pid.cast("foo")
    assert server.notes.wait("casted") == ["foo"]
    server.answers.put((changed, NoReply()))
    server.pid.call("ping")
    assert changed.all == [("ping", None)]


def test_a_local_client_can_send_a_cast_with_continuation(server):
    """test/callbacks/server_local_test.exs:147."""
    changed = Notes()
    server.pid.cast("foo")
    assert server.notes.wait("casted") == ["foo"]
    server.answers.put((changed, NoReply(then=Continue("continued"))))
    assert changed.wait("continue") == ["continued"]


def test_a_local_client_can_cast_a_stop(server):
    """test/callbacks/server_local_test.exs:154."""
    server.pid.cast("foo")
    assert server.notes.wait("casted") == ["foo"]
    server.answers.put((server.notes, Stop(NORMAL)))
    assert ended(server.pid) is NORMAL


def test_a_local_client_can_send_a_info(server):
    """test/callbacks/server_local_test.exs:164."""
    changed = Notes()
    server.pid.send("foo")
    assert server.notes.wait("sent") == ["foo"]
    server.answers.put((changed, NoReply()))
    server.pid.call("ping")
    assert changed.all == [("ping", None)]


def test_a_local_client_can_send_a_info_with_a_continuation(server):
    """test/callbacks/server_local_test.exs:172."""
    changed = Notes()
    server.pid.send("foo")
    assert server.notes.wait("sent") == ["foo"]
    server.answers.put((changed, NoReply(then=Continue("continued"))))
    server.pid.call("ping")
    assert changed.all == [("continue", "continued"), ("ping", None)]


def test_a_local_client_can_send_a_stop(server):
    """test/callbacks/server_local_test.exs:180."""
    server.pid.send("foo")
    assert server.notes.wait("sent") == ["foo"]
    server.answers.put((server.notes, Stop(NORMAL)))
    assert ended(server.pid) is NORMAL
