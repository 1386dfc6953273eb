"""The daemon of `erps demo`, what it serves, and the client that calls it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from logging import getLogger
from pathlib import Path
from typing import Any

import gevent
from gevent.queue import Queue
from gevent.socket import wait_read

from erps_gevent.client import Client
from erps_gevent.daemon import Daemon
from erps_gevent.otp.messages import From, NoReply, Reply
from erps_gevent.server import Server
from erps_gevent.transport.tls import Tls

HOST = "127.0.0.1"

executed: Counter[int] = Counter()  # how often this daemon began the work of each token


class Shop(Server, identifier="demo", versions="~=1.0"):
    """What the daemon serves: a count for each connection, and work that is done a little later."""

    def init(self) -> None:
        self.count = 0

    def handle_call(self, request: Any, from_: From) -> Reply | NoReply:
        match request:
            case ("add", int(number)):
                self.count += number
                return Reply(self.count)
            case ("work", int(token)):
                executed[token] += 1
                return self.defer(from_, _worked, token)
            case ("sleep", float(seconds)):
                return self.defer(from_, gevent.sleep, seconds)
        assert request == "who"
        assert self.peer is not None
        return Reply(self.peer.sans[0])

    def handle_cast(self, request: Any) -> None:
        match request:
            case ("add", int(number)):
                self.count += number
            case ("count to", int(number)):
                for message in range(1, number + 1):
                    self.push(message)


def _worked(token: int) -> int:
    gevent.sleep(0.005)
    return token


class Person(Client, identifier="demo", version="1.0.0", hub="here"):
    """A client that keeps what is pushed to it."""

    def init(self) -> None:
        self.heard: Queue[Any] = Queue()

    def handle_push(self, message: Any) -> None:
        self.heard.put(message)


def serve(directory: str, port: str) -> None:
    """The daemon's process: serve until SIGTERM, then print what was executed; end if the starting process does.

    It prints its port as soon as it listens.
    """
    getLogger("erps_gevent").disabled = True
    daemon = Daemon((HOST, int(port)), Shop, transport=identity(Path(directory), HOST), reuse_port=True)
    gevent.signal_handler(signal.SIGTERM, daemon.close)
    gevent.spawn(_end_with_parent)
    daemon.start()
    print(daemon.server_port, flush=True)
    daemon.serve_forever()
    print(json.dumps(executed), flush=True)


def _end_with_parent() -> None:
    wait_read(sys.stdin.fileno())
    os._exit(1)


def identity(directory: Path, name: str) -> Tls:
    return Tls(ca=directory / "ca.pem", cert=directory / f"{name}.pem", key=directory / f"{name}.key")
