"""test/is_remote_test.exs of Erps 0.7.0."""

from __future__ import annotations

from faces import Notes
from injected import Deaf

import erps_gevent as erps
from erps_gevent import Reply


class Local(erps.GenServer):
    def handle_call(self, request, from_):
        return Reply(from_)


class Server(erps.Server):
    def init(self, notes):
        self.notes = notes

    def handle_call(self, request, from_):
        self.notes("from", from_)
        return Reply("ok")


class Guarded(erps.Server):
    def init(self, notes):
        self.notes = notes
        notes("server", self.pid)

    def handle_call(self, request, from_):
        match from_:
            case _ if from_.is_remote:
                self.notes("remote")
            case _:
                self.notes("local")
        return Reply("ok")


def test_a_normal_genserver_s_from_resolves_as_false_in_is_remote_1():
    """test/is_remote_test.exs:14."""
    server = Local.start()
    assert erps.is_remote(server.call("foo")) is False
    erps.stop(server)


def test_an_erps_server_s_from_resolves_as_true_in_is_remote_1(plain_house):
    """test/is_remote_test.exs:45."""
    notes = Notes()
    client = plain_house.client(plain_house.daemon(Server, notes), cls=Deaf)
    assert client.call("foo") == "ok"
    assert erps.is_remote(notes.of("from")[0]) is True


def test_is_remote_1_can_be_used_in_guards(plain_house):
    """test/is_remote_test.exs:75."""
    notes = Notes()
    client = plain_house.client(plain_house.daemon(Guarded, notes), cls=Deaf)
    assert client.call("foo") == "ok"
    (server,) = notes.of("server")
    assert server.call("foo") == "ok"
    assert [what for what, _ in notes.all] == ["server", "remote", "local"]
