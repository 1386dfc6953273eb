"""zerorpc: its server and its client, heartbeats as they are by default. One client serves many greenlets."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import gevent
import zerorpc

from contestants import side

VERSIONS = {"zerorpc": version("zerorpc")}


class Echo:
    def echo(self, value: Any) -> Any:
        return value


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    server = zerorpc.Server(Echo())
    server.bind("tcp://127.0.0.1:0")
    endpoint = server._events._socket.getsockopt_string(zerorpc.zmq.LAST_ENDPOINT)
    ready(int(endpoint.rpartition(":")[2]))
    server.run()


class Line:
    def __init__(self, plan: side.Plan) -> None:
        self.client = zerorpc.Client(f"tcp://127.0.0.1:{plan['port']}")
        self.call = self.client.echo

    def close(self) -> None:
        self.client.close()


connect = Line


def gather(functions: list[Callable[[], None]]) -> None:
    gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)


if __name__ == "__main__":
    side.main(__name__)
