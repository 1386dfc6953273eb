"""What one call costs, in numbers that do not depend on the machine: functions of this package, and system calls.

A number that has grown means that something is done for every call that was not before. That may be worth it; then
change the number, and say in the commit what it buys. One that has shrunk: write down the new one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from typing import Any

import gevent
import pytest
from gevent import getcurrent, subprocess
from support import PACKAGE, child_environ

import erps_gevent as erps
from erps_gevent.server_connection import ServerConnection

CALLS = 20
CLIENT_FUNCTIONS = 21
SERVER_FUNCTIONS = 30
ON_LIBUV = os.environ.get("GEVENT_LOOP") == "libuv"
SYSTEM_CALLS = {"sendto": 1, "recvfrom": 1, "epoll_wait": 1}  # each side; beside what libev asks for once a turn


class Echo(erps.Server):
    def handle_call(self, request, from_):
        return erps.Reply(request)


@pytest.fixture
def client():
    with erps.Daemon(("127.0.0.1", 0), Echo, transport=erps.Tcp(), blocking_threshold=None) as daemon:
        with erps.Client(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here", keepalive=None) as client:
            for _ in range(CALLS):
                client.call("until all that is made once is made")
            yield client
        daemon.stop()


def side_of(frame: Any, hub: Any, caller: Any) -> str:
    """Which end a function runs for: both live in one hub, whose own callbacks are the reads of each."""
    running = getcurrent()
    if running is caller:
        return "client"
    if running is not hub:
        return "server"
    while frame.f_back is not None and str(PACKAGE) in frame.f_back.f_code.co_filename:
        frame = frame.f_back
    return "server" if isinstance(frame.f_locals.get("self"), ServerConnection) else "client"


@pytest.mark.skipif(ON_LIBUV, reason="turns are told apart by the loop's time, and libuv's has whole milliseconds")
def test_a_call_runs_so_many_functions_of_ours_and_no_more(client):
    counts: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {"client": Counter(), "server": Counter()}
    hub, caller = gevent.get_hub(), getcurrent()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            side = side_of(frame, hub, caller)
            counts[side] += 1
            names[side][frame.f_code.co_name] += 1

    sys.setprofile(note)
    try:
        for _ in range(CALLS):
            client.call("x" * 32)
    finally:
        sys.setprofile(None)
    # The first of a series begins in the middle of a turn, and its server is parked already.
    per_call = {side: round(count / CALLS, 1) for side, count in counts.items()}
    assert per_call == {"client": CLIENT_FUNCTIONS, "server": SERVER_FUNCTIONS}, names


CLIENT = """
import sys
import gevent
import erps_gevent as erps

def main():
    with erps.Client(("127.0.0.1", int(sys.argv[1])), transport=erps.Tcp(), keepalive=None) as client:
        for _ in range(int(sys.argv[2])):
            client.call("x" * 32)

gevent.spawn(main).join()
"""
SERVER = """
import erps_gevent as erps

class Echo(erps.Server):
    def handle_call(self, request, from_):
        return erps.Reply(request)

    def terminate(self, reason):
        daemon.close()

with erps.Daemon(("127.0.0.1", 0), Echo, transport=erps.Tcp(), blocking_threshold=None) as daemon:
    print(daemon.server_port, flush=True)
    daemon.serve_forever()
"""

traces = pytest.mark.skipif(
    shutil.which("strace") is None or ON_LIBUV, reason="needs strace, and counts what libev does"
)


def traced(path, code, *args):
    strace = ["strace", "-f", "-qq", "-o", str(path), "-e", "trace=" + ",".join(SYSTEM_CALLS)]
    return [*strace, sys.executable, "-c", code, *map(str, args)]


def per_call(fewer, more, calls):
    """The system calls of each of the `calls` by which the second trace is longer."""
    counts = [
        Counter(line.split()[1].partition("(")[0] for line in path.read_text().splitlines() if "(" in line)
        for path in (fewer, more)
    ]
    return {name: round((counts[1][name] - counts[0][name]) / calls, 1) for name in SYSTEM_CALLS}


@traces
def test_a_call_makes_three_system_calls_at_the_client(client, tmp_path):
    port = client.peer.address[1]
    for calls in (50, 150):
        command = traced(tmp_path / str(calls), CLIENT, port, calls)
        subprocess.run(command, env=child_environ(), timeout=60, check=True)
    assert per_call(tmp_path / "50", tmp_path / "150", 100) == SYSTEM_CALLS


@traces
def test_a_call_makes_three_system_calls_at_the_server(tmp_path):
    for calls in (50, 150):
        command = traced(tmp_path / str(calls), SERVER)
        server = subprocess.Popen(command, env=child_environ(), stdout=subprocess.PIPE, text=True)
        with erps.Client(("127.0.0.1", int(server.stdout.readline())), transport=erps.Tcp(), hub="here") as client:
            for _ in range(calls):
                client.call("x" * 32)
        server.communicate(timeout=60)
    assert per_call(tmp_path / "50", tmp_path / "150", 100) == SYSTEM_CALLS
