"""Fork storms: a program forks with its client in use, and parents and children all call on.

The daemon sees who speaks on which line; nothing of one process may ever come over the line of another.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import times
from support import Certs, child_environ

import erps_gevent as erps

SCRIPT = Path(__file__).parent / "storm.py"
DEADLINE = 300.0  # seconds, for fifty interpreters to start on a busy machine

FORKING = ("os.fork", "gevent.os.fork", "multiprocessing.fork")
COUNT = times(5, 50)
STARTING = times(2, 50)  # interpreters take long to start
# libuv has one method in the short form: there, what forks makes no difference to the loop.
CASES = [
    *((method, hub, "libev-cext", COUNT) for method in FORKING for hub in ("here", "thread")),
    *((method, hub, "libuv", COUNT) for method in FORKING[: times(1, 3)] for hub in ("here", "thread")),
    *((f"multiprocessing.{method}", "thread", "libev-cext", STARTING) for method in ("forkserver", "spawn")),
]


@pytest.fixture(params=["tcp", "tls13"])
def wire(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def port(wire: str, certs: Certs) -> Iterator[str]:
    command = [sys.executable, str(SCRIPT), "serve", wire, str(certs.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environ()) as daemon:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
        daemon.kill()


def reported(port: str, wire: str, certs: Certs) -> list:
    transport = erps.Tcp() if wire == "tcp" else erps.Tls(**certs.identity("alice"))

    class Asking(erps.Client, identifier="storm"):
        """A client of the daemon."""

    with Asking(("127.0.0.1", int(port)), transport=transport) as client:
        return client.call("report")


@pytest.mark.parametrize(("method", "hub", "loop", "forks"), CASES)
def test_a_storm_of_forks_crosses_no_byte_and_leaks_nothing(port, wire, certs, method, hub, loop, forks):
    command = [sys.executable, str(SCRIPT), "fork", port, wire, str(certs.directory), hub, method, str(forks)]
    done = subprocess.run(
        command, env=child_environ(GEVENT_LOOP=loop), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(f"{method} {hub} {wire} {loop}: {len(report['codes'])} forks, {report['calls']} calls of the parent")
    faults, seen = reported(port, wire, certs)
    assert faults == []
    assert report["faults"] == []
    assert report["codes"] == [0] * forks, done.stderr
    assert seen >= report["calls"] + 20 * forks
    assert (report["connects"], report["lost"]) == (1, 0)
    assert report["descriptors"] <= 0
