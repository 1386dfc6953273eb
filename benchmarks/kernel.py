"""What processes cost, against bare gevent in the same run.

    python benchmarks/kernel.py            all cases, about a minute
    python benchmarks/kernel.py call       one of: call, chain, processes
    python benchmarks/kernel.py --json     the figures as JSON

Contestants take turns (A B A B ...), and what is printed are medians over the rounds, with quartiles, and their ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.queue import SimpleQueue

import erps_gevent as erps

ROUNDS = 7
CALLS = 20_000  # a round
CHAIN, MESSAGES = 1_000, 1_000  # a million hops
PROCESSES = 100_000


class Echo(erps.GenServer):
    def handle_call(self, request: Any, from_: erps.From) -> erps.Reply:
        return erps.Reply(request)


def calls_of_ours() -> float:
    """Calls per second of one caller."""
    pid = Echo.start()
    begun = perf_counter()
    for number in range(CALLS):
        pid.call(number)
    rate = CALLS / (perf_counter() - begun)
    erps.stop(pid)
    return rate


def calls_of_bare_gevent() -> float:
    """The least that asks and answers: a queue of requests, each with an AsyncResult; no deadline, no monitor."""
    requests: SimpleQueue[Any] = SimpleQueue()

    def serve() -> None:
        while True:
            value, answer = requests.get()
            answer.set(value)

    server = gevent.spawn(serve)
    begun = perf_counter()
    for number in range(CALLS):
        answer: AsyncResult[int] = AsyncResult()
        requests.put((number, answer))
        answer.get()
    rate = CALLS / (perf_counter() - begun)
    server.kill()
    return rate


def chain_of_ours() -> float:
    """Hops per second of MESSAGES messages through CHAIN processes."""

    def forward(to: erps.Pid) -> None:
        while True:
            erps.send(to, erps.receive())

    me = erps.current()
    first, pids = me, []
    for _ in range(CHAIN):
        first = erps.spawn(forward, first)
        pids.append(first)
    begun = perf_counter()
    for number in range(MESSAGES):
        erps.send(first, number)
    for number in range(MESSAGES):
        assert erps.receive() == number
    rate = CHAIN * MESSAGES / (perf_counter() - begun)
    end(pids)
    return rate


def chain_of_bare_gevent() -> float:
    """The same over gevent queues, a greenlet between each two."""

    def forward(source: SimpleQueue[int], to: SimpleQueue[int]) -> None:
        while True:
            to.put(source.get())

    last: SimpleQueue[int] = SimpleQueue()
    first, greenlets = last, []
    for _ in range(CHAIN):
        source: SimpleQueue[int] = SimpleQueue()
        greenlets.append(gevent.spawn(forward, source, first))
        first = source
    begun = perf_counter()
    for number in range(MESSAGES):
        first.put(number)
    for number in range(MESSAGES):
        assert last.get() == number
    rate = CHAIN * MESSAGES / (perf_counter() - begun)
    gevent.killall(greenlets)
    return rate


def end(pids: list[erps.Pid]) -> None:
    for pid in pids:
        erps.kill(pid)
    while any(pid.is_alive() for pid in pids):
        gevent.sleep(0)


def bytes_each(start: Callable[[], Any], finish: Callable[[list[Any]], Any]) -> tuple[float, float]:
    """Bytes of memory for each of PROCESSES that wait, and how many were started in a second."""
    gc.collect()
    before = resident_bytes()
    begun = perf_counter()
    waiting = [start() for _ in range(PROCESSES)]
    gevent.sleep(0)
    gevent.sleep(0)
    rate = PROCESSES / (perf_counter() - begun)
    size = (resident_bytes() - before) / PROCESSES
    finish(waiting)
    return size, rate


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def in_child(case: str) -> tuple[float, float]:
    """Memory is measured in a process of its own, which has freed nothing before."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(MEMORY[case])


def processes_of_ours() -> tuple[float, float]:
    return bytes_each(lambda: erps.spawn(erps.receive), end)


def processes_of_bare_gevent() -> tuple[float, float]:
    def start() -> gevent.Greenlet[..., Any]:
        return gevent.spawn(SimpleQueue().get)

    return bytes_each(start, gevent.killall)


MEMORY = {"ours": processes_of_ours, "bare": processes_of_bare_gevent}
RATES = {
    "call": ("calls/s, one caller", calls_of_ours, calls_of_bare_gevent),
    "chain": ("hops/s, a million through a chain", chain_of_ours, chain_of_bare_gevent),
}


def race(case: str, rounds: int) -> dict[str, Any]:
    what, ours, bare = RATES[case]
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ours())
        theirs.append(bare())
    return {
        "what": what,
        "erps_gevent": spread(mine),
        "bare gevent": spread(theirs),
        "ratio": median(mine) / median(theirs),
    }


def spread(figures: list[float]) -> dict[str, float]:
    low, middle, high = quantiles(figures, n=4)
    return {"median": middle, "q1": low, "q3": high}


def weigh() -> dict[str, Any]:
    (mine, mine_rate), (theirs, their_rate) = in_child("ours"), in_child("bare")
    return {
        "what": f"bytes for each of {PROCESSES:,} that wait",
        "erps_gevent": {"bytes": mine, "started_per_second": mine_rate},
        "bare gevent": {"bytes": theirs, "started_per_second": their_rate},
        "ratio": mine / theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help="call, chain, processes; all if none is named")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cases = options.cases or [*RATES, "processes"]
    if unknown := {*cases} - {*RATES, "processes"}:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(RATES)} and processes")
    results = {case: weigh() if case == "processes" else race(case, options.rounds) for case in cases}
    if options.json:
        print(
            json.dumps({"python": platform.python_version(), "gevent": gevent.__version__, "cases": results}, indent=2)
        )
        return
    print(f"Python {platform.python_version()}, gevent {gevent.__version__}")
    for result in results.values():
        print(f"\n{result['what']}: {result['ratio']:.2f} of bare gevent")
        for who in ("erps_gevent", "bare gevent"):
            print(f"  {who:12}", "  ".join(f"{name} {value:,.0f}" for name, value in result[who].items()))


if __name__ == "__main__":
    main()
