"""This library: a Daemon with a server that echoes, and its Client; over TCP or two-way TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import loads
from gevent.event import Event

import erps_gevent as erps
from contestants import side

VERSIONS = {"erps_gevent": erps.__version__}


class Echo(erps.Server, identifier="benchmark"):
    def init(self) -> None:
        self.casts = 0

    def handle_call(self, request: Any, from_: erps.From) -> erps.Reply:
        return erps.Reply(request)

    def handle_cast(self, request: Any) -> erps.NoReply:
        self.casts += 1
        return erps.NoReply()


class Counting(Echo, identifier="benchmark"):
    """Answers how many casts have arrived since it was asked."""

    def handle_call(self, request: Any, from_: erps.From) -> erps.Reply:
        counted, self.casts = self.casts, 0
        return erps.Reply(counted)


class Speaker(Echo, identifier="benchmark"):
    """Says to all clients what one asks it to."""

    def handle_call(self, request: Any, from_: erps.From) -> erps.Reply:
        return erps.Reply(_daemon.broadcast(request))


SERVERS = {"casts": Counting, "pushes": Speaker}
_daemon: erps.Daemon


def transport(plan: side.Plan, end: str) -> Any:
    files = plan.get("tls")
    if not files:
        return erps.Tcp()
    return erps.Tls(ca=files["ca"], cert=files[f"{end}_cert"], key=files[f"{end}_key"])


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    global _daemon
    server = SERVERS.get(plan["load"], Echo)
    _daemon = erps.Daemon(("127.0.0.1", 0), server, transport=transport(plan, "server"), max_connections=20_000)
    _daemon.start()
    ready(_daemon.server_port)
    _daemon.serve_forever()


class Caller(erps.Client, identifier="benchmark"):
    def confirm(self, count: int) -> None:
        counted = self.call("count", timeout=60.0)
        if counted != count:
            raise AssertionError(f"{counted} of {count} casts arrived")


_transports: dict[str, Any] = {}


def connect(plan: side.Plan, cls: type[Caller] = Caller, **more: Any) -> Any:
    # One for all lines, as an application has it: the certificates are read once.
    if "client" not in _transports:
        _transports["client"] = transport(plan, "client")
    hub = plan.get("hub", "here")
    client = cls(("localhost", plan["port"]), transport=_transports["client"], hub=hub, **more)
    client.connect()
    client.wait_connected()
    return client


def gather(functions: list[Callable[[], None]]) -> None:
    gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)


class Listener(Caller, identifier="benchmark"):
    audience: Audience

    def handle_push(self, message: Any) -> None:
        heard = self.audience
        heard.missing -= 1
        if not heard.missing:
            heard.complete.set()


class Audience:
    """Clients that all hear what one of them asks the server to say."""

    def __init__(self, plan: side.Plan) -> None:
        Listener.audience = self
        self.missing, self.complete, self.value = 0, Event(), loads.value_of(plan)
        self.clients = [connect(plan, Listener) for _ in range(plan["connections"])]

    def hear(self, times: int) -> None:
        for _ in range(times):
            self.missing = len(self.clients)
            self.complete.clear()
            told = self.clients[0].call(self.value, timeout=60.0)
            if told != len(self.clients):
                raise AssertionError(f"{told} of {len(self.clients)} clients were told")
            self.complete.wait()


@contextmanager
def audience(plan: side.Plan) -> Iterator[Audience]:
    heard = Audience(plan)
    try:
        yield heard
    finally:
        for client in heard.clients:
            client.close()


if __name__ == "__main__":
    side.main(__name__)
