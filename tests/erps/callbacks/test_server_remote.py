"""test/callbacks/server_remote_test.exs of Erps 0.7.0: the same over a line."""

from __future__ import annotations

from typing import Any, NamedTuple

import gevent
import pytest
from faces import PATIENCE, Notes
from injected import Answers, Deaf, Server, down

import erps_gevent as erps
from erps_gevent import NORMAL, Continue, NoReply, Reply, Stop


class Remote(NamedTuple):
    client: Any
    server: erps.Pid
    notes: Notes
    answers: Answers


@pytest.fixture
def remote(house):
    notes, answers = Notes(), Answers()
    client = house.client(house.daemon(Server, notes, answers), cls=Deaf, heal=False)
    client.connect()
    return Remote(client, notes.wait("server")[0], notes, answers)


def calling(remote):
    """A greenlet that calls "foo"; the handler waits for its answer."""
    caller = gevent.spawn(remote.client.call, "foo", timeout=PATIENCE)
    ((_, request),) = remote.notes.wait("called")
    assert request == "foo"
    return caller


def test_a_remote_client_receives_a_call_result(remote):
    """test/callbacks/server_remote_test.exs:80."""
    changed = Notes()
    caller = calling(remote)
    remote.answers.put((changed, Reply("foo")))
    assert caller.get(timeout=PATIENCE) == "foo"
    remote.server.call("ping")
    assert changed.all == [("ping", None)]


def test_a_remote_client_can_send_the_server_into_a_continuation(remote):
    """test/callbacks/server_remote_test.exs:89."""
    changed = Notes()
    caller = calling(remote)
    remote.answers.put((changed, Reply("foo", then=Continue("continued"))))
    assert caller.get(timeout=PATIENCE) == "foo"
    assert changed.wait("continue") == ["continued"]


def test_a_remote_client_can_send_the_server_into_a_noreply(remote):
    """test/callbacks/server_remote_test.exs:97. The reply comes from outside of the server."""
    changed = Notes()
    caller = calling(remote)
    remote.answers.put((changed, NoReply()))
    remote.notes.of("called")[0][0].reply("foo")
    assert caller.get(timeout=PATIENCE) == "foo"
    remote.server.call("ping")
    assert changed.all == [("ping", None)]


def test_a_remote_client_can_send_the_server_into_a_noreply_with_a_continuation(remote):
    """test/callbacks/server_remote_test.exs:112."""
    changed = Notes()
    caller = calling(remote)
    remote.answers.put((changed, NoReply(then=Continue("continued"))))
    erps.reply(remote.notes.of("called")[0][0], "foo")
    assert caller.get(timeout=PATIENCE) == "foo"
    assert changed.wait("continue") == ["continued"]


def test_a_remote_client_can_stop_the_server_with_reply(remote):
    """test/callbacks/server_remote_test.exs:126."""
    server = down(remote.server)
    caller = calling(remote)
    remote.answers.put((remote.notes, Stop(NORMAL, reply="foo")))
    assert caller.get(timeout=PATIENCE) == "foo"
    assert server() is NORMAL


def test_a_remote_client_can_stop_the_server_without_reply(remote):
    """test/callbacks/server_remote_test.exs:138. The client ends with its line because it does not heal."""
    server, client = down(remote.server), down(remote.client.pid)
    caller = calling(remote)
    remote.answers.put((remote.notes, Stop(NORMAL)))
    with pytest.raises(erps.ServerExit) as caught:
        caller.get(timeout=PATIENCE)
    assert caught.value.reason is NORMAL
    assert server() is NORMAL
    assert client() == "disconnected"


def test_a_remote_client_can_send_a_cast(remote):
    """test/callbacks/server_remote_test.exs:156."""
    changed = Notes()
    remote.client.cast("foo")
    assert remote.notes.wait("casted") == ["foo"]
    remote.answers.put((changed, NoReply()))
    remote.server.call("ping")
    assert changed.all == [("ping", None)]


def test_a_remote_client_can_send_a_cast_with_continuation(remote):
    """test/callbacks/server_remote_test.exs:164."""
    changed = Notes()
    remote.client.cast("foo")
    assert remote.notes.wait("casted") == ["foo"]
    remote.answers.put((changed, NoReply(then=Continue("continued"))))
    assert changed.wait("continue") == ["continued"]


def test_a_remote_client_can_cast_a_stop(remote):
    """test/callbacks/server_remote_test.exs:171."""
    server = down(remote.server)
    remote.client.cast("foo")
    assert remote.notes.wait("casted") == ["foo"]
    remote.answers.put((remote.notes, Stop(NORMAL)))
    assert server() is NORMAL
