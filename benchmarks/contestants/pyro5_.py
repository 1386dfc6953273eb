"""Pyro5: an exposed class in a daemon with threads, and a proxy for each caller, which owns it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import Pyro5.api

from contestants import side

VERSIONS = {"Pyro5": version("Pyro5")}
Pyro5.config.THREADPOOL_SIZE = 200  # a thread for each connection; the default of 80 would refuse some of 100


@Pyro5.api.expose
@Pyro5.api.behavior(instance_mode="single")
class Echo:
    def echo(self, value: Any) -> Any:
        return value


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    daemon = Pyro5.api.Daemon(host="127.0.0.1", port=0)
    daemon.register(Echo, "echo")
    ready(int(daemon.locationStr.rpartition(":")[2]))
    daemon.requestLoop()


class Line:
    def __init__(self, plan: side.Plan) -> None:
        self.proxy = Pyro5.api.Proxy(f"PYRO:echo@127.0.0.1:{plan['port']}")

    def call(self, value: Any) -> None:
        self.proxy._pyroClaimOwnership()  # a comparison of threads; the load connects in one and calls in another
        self.proxy.echo(value)  # serpent makes a dict of bytes: not compared

    def close(self) -> None:
        self.proxy._pyroClaimOwnership()
        self.proxy._pyroRelease()


connect = Line
gather = side.in_threads

if __name__ == "__main__":
    side.main(__name__)
