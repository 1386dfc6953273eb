"""RPyC: a ThreadedServer with a service, and `rpyc.connect`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import rpyc
from rpyc.utils.server import ThreadedServer

from contestants import side

VERSIONS = {"RPyC": version("rpyc")}


class Echo(rpyc.Service):
    def exposed_echo(self, value: Any) -> Any:
        return value


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    server = ThreadedServer(Echo, hostname="127.0.0.1", port=0)
    ready(server.port)
    server.start()


class Line:
    def __init__(self, plan: side.Plan) -> None:
        self.connection = rpyc.connect("127.0.0.1", plan["port"])
        self.call = self.connection.root.echo

    def close(self) -> None:
        self.connection.close()


connect = Line
gather = side.in_threads

if __name__ == "__main__":
    side.main(__name__)
