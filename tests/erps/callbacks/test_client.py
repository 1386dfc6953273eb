"""test/callbacks/client_test.exs of Erps 0.7.0."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from faces import Notes, ended
from injected import Answers, Client, Echo, started

import erps_gevent as erps
from erps_gevent import NORMAL, NoReply, Stop


class Pair(NamedTuple):
    """A started client, the server process at the other end, and what they tell."""

    client: erps.Pid
    server: erps.Pid
    notes: Notes
    answers: Answers


@pytest.fixture
def pair(plain_house):
    """Its client does not come back: in Erps that is for its supervisor to do."""
    notes, served, answers = Notes(), Notes(), Answers()
    client = started(plain_house, Client, plain_house.daemon(Echo, served), notes, answers, heal=False)
    notes.wait("connect")
    return Pair(client, served.of("server")[0], notes, answers)


class TestWhenInstrumentedWithAHandlePushResponse:
    def test_the_client_can_process_a_noreply_state(self, pair):
        """test/callbacks/client_test.exs:57."""
        for count, message in enumerate(("foo", "bar"), 1):
            erps.push(pair.server, message)
            assert pair.notes.wait("push", count)[-1] == message
            pair.answers.put((pair.notes, NoReply()))

    def test_the_client_can_process_a_mutating_noreply_state(self, pair):
        """test/callbacks/client_test.exs:67."""
        changed = Notes()
        erps.push(pair.server, "foo")
        assert pair.notes.wait("push") == ["foo"]
        pair.answers.put((changed, NoReply()))
        erps.push(pair.server, "bar")
        assert changed.wait("push") == ["bar"]
        pair.answers.put((changed, NoReply()))
        assert pair.notes.of("push") == ["foo"]

    def test_the_client_can_process_a_stop_reason_state(self, pair):
        """test/callbacks/client_test.exs:80."""
        erps.push(pair.server, "foo")
        assert pair.notes.wait("push") == ["foo"]
        pair.answers.put((pair.notes, Stop(NORMAL)))
        assert ended(pair.client) is NORMAL
        assert pair.notes.of("terminate") == [NORMAL]


class TestWhenInstrumentedWithAHandleInfoResponse:
    def test_the_client_can_process_a_noreply_state(self, pair):
        """test/callbacks/client_test.exs:92."""
        erps.send(pair.client, "foo")
        assert pair.notes.wait("info") == ["foo"]
        pair.answers.put((pair.notes, NoReply()))
        assert pair.client.call("ping") == "pong"

    def test_the_client_can_process_a_stop_message(self, pair):
        """test/callbacks/client_test.exs:99."""
        erps.send(pair.client, "foo")
        assert pair.notes.wait("info") == ["foo"]
        pair.answers.put((pair.notes, Stop(NORMAL)))
        assert ended(pair.client) is NORMAL
        assert pair.notes.of("terminate") == [NORMAL]


class TestTheTerminate2CallbackIsCalled:
    def test_when_the_server_disconnects(self, pair):
        """test/callbacks/client_test.exs:111. A client that heals, the default, would dial again and live on."""
        erps.disconnect(pair.server)
        assert ended(pair.client) == "disconnected"
        assert pair.notes.of("terminate") == ["disconnected"]
