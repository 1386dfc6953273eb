"""32 native threads and 32 greenlets that share one client: `python crowd.py PORT WIRE CERTS CALLS`.

Unpatched. While they call, others are struck in the middle of a call: by timeouts, gevent.Timeout, kill, and what
PyThreadState_SetAsyncExc raises in a thread. The last word is one line of JSON, with a client that is never closed and
threads that still wait.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
from target import client_transport

import erps_gevent as erps

CALLERS = 32  # of each kind
UNLUCKY = 4  # of each kind


class Crowd(erps.Client, identifier="target"):
    """Shared by all."""


class Struck(Exception):
    """Raised in a thread from outside."""


class Run:
    """One run, and what is counted of it; each caller counts for itself."""

    def __init__(self, client: erps.Client, calls: int) -> None:
        self.client = client
        self.calls_each = calls // (2 * CALLERS)
        self.rest = calls - self.calls_each * 2 * CALLERS
        self.over = False
        self.inside: dict[int, bool] = {}  # the threads that may be struck, and whether they are in a call
        self.counts: list[Counter[str]] = []

    def call_on(self, caller: int) -> None:
        counts = self._counter()
        for number in range(self.calls_each + (self.rest if caller == 0 else 0)):
            token = [caller, number]
            counts["right" if self.client.call(("echo", token), timeout=60.0) == token else "wrong"] += 1

    def be_short(self, seed: int) -> None:
        """Time out at any moment."""
        counts, luck = self._counter(), random.Random(seed)
        while not self.over:
            number = luck.random()
            try:
                value = self.client.call(("later", 0.01, number), timeout=luck.random() * 0.04)
                counts["answered" if value == number else "wrong"] += 1
            except erps.CallTimeout:
                counts["CallTimeout"] += 1

    def be_struck(self, seed: int) -> None:
        """A thread that is struck anywhere in its calls."""
        counts = self._counter()
        number = seed
        while not self.over:
            try:
                number += 1
                self.inside[threading.get_ident()] = True
                value = self.client.call(("later", 0.01, number), timeout=60.0)
                self.inside[threading.get_ident()] = False
                counts["answered" if value == number else "wrong"] += 1
            except Struck:
                self.inside[threading.get_ident()] = False
                counts["Struck"] += 1

    def strike(self, luck: random.Random) -> None:
        ident = luck.choice(list(self.inside) or [0])
        if self.inside.pop(ident, False):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Struck))

    def end_greenlets(self, seed: int) -> None:
        """Kill greenlets in their calls, or have a gevent.Timeout strike."""
        counts, luck = self._counter(), random.Random(seed)
        while not self.over:
            try:
                with gevent.Timeout(luck.random() * 0.03):
                    self.client.call(("later", 0.01, seed), timeout=60.0)
                    counts["answered"] += 1
            except gevent.Timeout:
                counts["Timeout"] += 1
            victim = gevent.spawn(self.client.call, ("later", 0.01, seed), timeout=60.0)
            gevent.sleep(luck.random() * 0.03)
            victim.kill()
            counts["killed" if isinstance(victim.value, gevent.GreenletExit) else "answered"] += 1

    def _counter(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        self.counts.append(counts)
        return counts


def threads(count: int, function: Callable[[int], Any]) -> list[threading.Thread]:
    made = [threading.Thread(target=function, args=(number,), daemon=True) for number in range(count)]
    for thread in made:
        thread.start()
    return made


def main(port: str, wire: str, directory: str, calls: str) -> None:
    client = Crowd(("127.0.0.1", int(port)), transport=client_transport(wire, directory))
    client.wait_connected(30.0)
    run = Run(client, int(calls))
    unlucky = [*threads(UNLUCKY, run.be_struck), *threads(UNLUCKY, run.be_short)]
    unlucky_greenlets = [gevent.spawn(run.end_greenlets, seed) for seed in range(UNLUCKY)]
    callers = threads(CALLERS, run.call_on)
    green_callers = [gevent.spawn(run.call_on, CALLERS + number) for number in range(CALLERS)]
    luck = random.Random(0)
    while any(thread.is_alive() for thread in callers) or not all(greenlet.dead for greenlet in green_callers):
        gevent.sleep(0.005)
        run.strike(luck)
    run.over = True
    gevent.joinall([*green_callers, *unlucky_greenlets], raise_error=True)
    while any(thread.is_alive() for thread in unlucky):
        gevent.sleep(0.01)
    # What was cancelled has been said by the time this is answered.
    assert client.call(("echo", "after"), timeout=60.0) == "after"
    total: Counter[str] = sum(run.counts, Counter())
    total.update({name: client.stats[name] for name in ("pending", "lost", "connects")})
    waiting = threads(8, lambda _: client.call("silence", timeout=None))
    while client.stats["pending"] < len(waiting):
        time.sleep(0.001)
    print(json.dumps(dict(total)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
