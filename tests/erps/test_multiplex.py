"""test/multiplex_test.exs of Erps 0.7.0: what takes long does not keep the line from the others."""

from __future__ import annotations

import gevent
from faces import PATIENCE, until
from gevent.event import Event
from injected import Deaf

import erps_gevent as erps
from erps_gevent import NoReply


class Server(erps.Server):
    """Answers a call when the gate that it names is open, from another greenlet."""

    def init(self, gates):
        self.gates = gates

    def handle_call(self, request, from_):
        def answer():
            self.gates[request].wait()
            from_.reply(request)

        gevent.spawn(answer)
        return NoReply()


def test_multiplexing_tasks(house):
    """test/multiplex_test.exs:45. Upstream the two calls are 100 ms apart; at once they would fail (F1)."""
    gates = {"outer": Event(), "inner": Event()}
    daemon = house.daemon(Server, gates)
    client = house.client(daemon, cls=Deaf)
    outer = gevent.spawn(client.call, "outer", timeout=PATIENCE)
    inner = gevent.spawn(client.call, "inner", timeout=PATIENCE)
    until(lambda: daemon.servers and daemon.servers[0].pending == 2)
    gates["inner"].set()
    assert inner.get(timeout=PATIENCE) == "inner"
    assert not outer.ready()
    gates["outer"].set()
    assert outer.get(timeout=PATIENCE) == "outer"
