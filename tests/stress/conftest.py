"""Fixtures of the stress tests: the three wires, a daemon in a process of its own, and how long to go on."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from support import Certs, child_environ

import erps_gevent as erps

sys.path.insert(0, str(Path(__file__).parent))

from target import client_transport, server_transport

LONG = os.environ.get("ERPS_STRESS", "short") == "long"


def times(short: int, long: int) -> int:
    """How often to do something: in CI, and when somebody has the time."""
    return long if LONG else short


class DaemonProcess:
    """A daemon that can be frozen and killed."""

    def __init__(self, wire: str, certs: Certs) -> None:
        self.wire = wire
        self.certs = certs
        self.port = 0
        self.child: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        script = Path(__file__).parent / "target.py"
        command = [sys.executable, str(script), str(self.port), self.wire, str(self.certs.directory)]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environ())
        assert self.child.stdout is not None
        # In gevent's thread pool: the clients under test run meanwhile.
        self.port = int(gevent.get_hub().threadpool.apply(self.child.stdout.readline))

    def send(self, signum: int) -> None:
        assert self.child is not None
        self.child.send_signal(signum)

    def kill(self) -> None:
        assert self.child is not None
        assert self.child.stdout is not None
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def client(self, **options: Any) -> erps.Client:
        class TargetClient(erps.Client, identifier="target", hub="here"):
            """A client of the target, in the hub of the test."""

        transport = client_transport(self.wire, str(self.certs.directory))
        return TargetClient(("127.0.0.1", self.port), transport=transport, **options)


@pytest.fixture(params=["tcp", "tls12", "tls13"])
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def target(wire: str, certs: Certs) -> Iterator[DaemonProcess]:
    process = DaemonProcess(wire, certs)
    yield process
    process.send(signal.SIGCONT)
    process.kill()


@pytest.fixture
def transports(wire: str, certs: Certs) -> tuple[Any, Any]:
    """The daemon's transport and the client's, for a daemon in the process of the test."""
    return server_transport(wire, str(certs.directory)), client_transport(wire, str(certs.directory))


class Footprint:
    """What must not grow: greenlets, descriptors, and memory."""

    def __init__(self) -> None:
        gevent.idle()
        gc.collect()
        self.greenlets = sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())
        self.descriptors = len(os.listdir("/proc/self/fd"))
        with open("/proc/self/statm") as statm:
            self.memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
