"""test/transport_false_test.exs of Erps 0.7.0: a server without a line.

Upstream that is `transport: false`, which has no effect but that no socket ever comes (F9). Here it is a server that no
daemon has started, and there is no such option.
"""

from __future__ import annotations

import pytest
from faces import Notes

import erps_gevent as erps
from erps_gevent import Reply


class Server(erps.Server):
    def init(self, notes):
        self.notes = notes

    def handle_call(self, request, from_):
        return Reply(request)

    def handle_cast(self, request):
        self.notes("cast", request)

    def handle_info(self, message):
        self.notes("info", message)


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def server(notes):
    pid = Server.start_link(notes)
    yield pid
    erps.stop(pid)


def test_handle_call_3_is_normal(server):
    """test/transport_false_test.exs:37."""
    assert server.call("foo") == "foo"


def test_handle_cast_2_is_normal(server, notes):
    """test/transport_false_test.exs:42."""
    server.cast("bar")
    assert notes.wait("cast") == ["bar"]


def test_handle_info_2_is_normal(server, notes):
    """test/transport_false_test.exs:48."""
    server.send("baz")
    assert notes.wait("info") == ["baz"]
