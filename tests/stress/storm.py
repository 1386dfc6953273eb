"""What the fork storms run: a daemon that watches who speaks on a line, and a program that forks with a client in use.

python storm.py serve WIRE CERTS                       prints its port
python storm.py fork PORT WIRE CERTS HUB METHOD COUNT  prints what it has done, as JSON
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from itertools import count
from typing import Any

import gevent
from target import client_transport, server_transport

import erps_gevent as erps

CALLS = 20  # that each child makes, and each caller of the parent between two forks at the least
CALLERS = 4  # greenlets or threads of the parent that call without pause
AT_ONCE = 4  # children that live at the same time

FAULTS: list[str] = []
SEEN: set[tuple[int, int]] = set()


class Watchful(erps.Server, identifier="storm"):
    """One line carries the calls of one process, each of them whole and once."""

    def init(self):
        self.speaker = None

    def handle_call(self, request, from_):
        if request == "report":
            return erps.Reply([FAULTS, len(SEEN)])
        pid, number, payload, checksum = request
        self.speaker = self.speaker or pid
        if pid != self.speaker:
            FAULTS.append(f"the line of {self.speaker} carried {pid}")
        if hashlib.sha256(payload).hexdigest() != checksum:
            FAULTS.append(f"call {number} of {pid} came damaged")
        if (pid, number) in SEEN:
            FAULTS.append(f"call {number} of {pid} came twice")
        SEEN.add((pid, number))
        return erps.Reply([pid, number, payload])


def serve(wire: str, directory: str) -> None:
    daemon = erps.Daemon(("127.0.0.1", 0), Watchful, transport=server_transport(wire, directory))
    daemon.start()
    print(daemon.server_port, flush=True)
    daemon.serve_forever()


class StormClient(erps.Client, identifier="storm"):
    """A client of the daemon."""


CLIENT: StormClient | None = None
numbers = count()


def made(port: str, wire: str, directory: str, hub: str) -> StormClient:
    return StormClient(("127.0.0.1", int(port)), transport=client_transport(wire, directory), hub=hub)


def ask(client: StormClient) -> None:
    pid, number = os.getpid(), next(numbers)
    payload = os.urandom(8) * (number % 4000)
    answer = client.call((pid, number, payload, hashlib.sha256(payload).hexdigest()), timeout=30.0)
    if answer != [pid, number, payload]:
        raise AssertionError(f"{pid} asked {number} and got the answer of {answer[:2]}")


def child(*where: str) -> None:
    """What every child does: with the client of its parent, if it has inherited it."""
    client = CLIENT or made(*where)
    for _ in range(CALLS):
        ask(client)
    client.close()


class Load:
    """Callers that do not pause."""

    def __init__(self, client: StormClient, in_thread: bool) -> None:
        self.client = client
        self.calls = 0
        self.faults: list[str] = []
        self.over = False
        self.in_thread = in_thread
        if in_thread:
            self.callers: list[Any] = [threading.Thread(target=self.run) for _ in range(CALLERS)]
            for caller in self.callers:
                caller.start()
        else:
            self.callers = [gevent.spawn(self.run) for _ in range(CALLERS)]

    def run(self) -> None:
        try:
            while not self.over:
                ask(self.client)
                self.calls += 1
        except Exception:  # noqa: BLE001  it is for the report
            # In a child it may be a copy of one that was waiting, and that is told so.
            self.faults.append(traceback.format_exc())

    def stop(self) -> None:
        self.over = True
        for caller in self.callers:
            caller.join()


def forked(method: str, where: tuple[str, ...], load: Load) -> Any:
    """A child that has begun; `poll` tells its exit code."""
    if method.startswith("multiprocessing"):
        process = multiprocessing.get_context(method.partition(".")[2]).Process(target=child, args=where)
        process.start()

        def ended_with() -> int | None:
            code = process.exitcode
            if code is not None:
                process.close()
            return code

        return ended_with
    module = os if method == "os.fork" else gevent.os
    pid, waitpid = module.fork(), module.waitpid
    if not pid:
        code = 1
        try:
            load.over = True
            child(*where)
            code = 0
        except BaseException:  # noqa: BLE001  the child ends here, whatever happens
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll() -> int | None:
        ended, status = waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None

    return poll


def fork(port: str, wire: str, directory: str, hub: str, method: str, forks: str) -> None:
    global CLIENT
    where = (port, wire, directory, hub)
    CLIENT = made(*where)
    ask(CLIENT)
    load = Load(CLIENT, hub == "thread")
    # gevent watches the children that it has forked, in the hub of this thread.
    rest = time.sleep if hub == "thread" and method != "gevent.os.fork" else gevent.sleep
    first = forked(method, where, load)  # what the method itself keeps open, it has from now on
    while first() is None:
        rest(0.005)
    before = len(os.listdir("/proc/self/fd"))
    codes: list[int] = []
    living: list[Any] = []
    begun = 0
    while begun < int(forks) or living:
        while begun < int(forks) and len(living) < AT_ONCE:
            living.append(forked(method, where, load))
            begun += 1
        ended = [(poll, code) for poll in living if (code := poll()) is not None]
        codes += [code for _, code in ended]
        living = [poll for poll in living if poll not in [one for one, _ in ended]]
        rest(0.005)
    load.stop()
    ask(CLIENT)
    del living, ended
    report = {
        "codes": codes,
        "faults": load.faults,
        "calls": load.calls,
        "descriptors": len(os.listdir("/proc/self/fd")) - before,
        "connects": CLIENT.stats["connects"],
        "lost": CLIENT.stats["lost"],
    }
    CLIENT.close()
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    {"serve": serve, "fork": fork}[sys.argv[1]](*sys.argv[2:])
