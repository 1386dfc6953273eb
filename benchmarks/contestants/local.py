"""Processes within one program, against bare gevent: a call, a long chain of messages, and memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.queue import SimpleQueue
from loads import Figures, private_bytes

import erps_gevent as erps
from contestants import side

CHAIN = 1_000
PROCESSES = 100_000


class Echo(erps.GenServer):
    def handle_call(self, request: Any, from_: erps.From) -> erps.Reply:
        return erps.Reply(request)


def calls_of_ours(calls: int) -> float:
    """Calls per second of one caller."""
    pid = Echo.start()
    begun = perf_counter()
    for number in range(calls):
        pid.call(number)
    rate = calls / (perf_counter() - begun)
    erps.stop(pid)
    return rate


def calls_of_bare_gevent(calls: int) -> float:
    """The least that asks and answers: a queue of requests, each with an AsyncResult; no deadline, no monitor."""
    requests: SimpleQueue[Any] = SimpleQueue()

    def serve() -> None:
        while True:
            value, answer = requests.get()
            answer.set(value)

    server = gevent.spawn(serve)
    begun = perf_counter()
    for number in range(calls):
        answer: AsyncResult[int] = AsyncResult()
        requests.put((number, answer))
        answer.get()
    rate = calls / (perf_counter() - begun)
    server.kill()
    return rate


def chain_of_ours(messages: int) -> float:
    """Hops per second of so many messages through CHAIN processes."""

    def forward(to: erps.Pid) -> None:
        while True:
            erps.send(to, erps.receive())

    me = erps.current()
    first, pids = me, []
    for _ in range(CHAIN):
        first = erps.spawn(forward, first)
        pids.append(first)
    begun = perf_counter()
    for number in range(messages):
        erps.send(first, number)
    for number in range(messages):
        assert erps.receive() == number
    rate = CHAIN * messages / (perf_counter() - begun)
    end(pids)
    return rate


def chain_of_bare_gevent(messages: int) -> float:
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
    for number in range(messages):
        first.put(number)
    for number in range(messages):
        assert last.get() == number
    rate = CHAIN * messages / (perf_counter() - begun)
    gevent.killall(greenlets)
    return rate


def end(pids: list[erps.Pid]) -> None:
    for pid in pids:
        erps.kill(pid)
    while any(pid.is_alive() for pid in pids):
        gevent.sleep(0)


def bytes_each(start: Callable[[], Any], finish: Callable[[list[Any]], Any], count: int) -> Figures:
    """Bytes of memory for each of so many that wait, and how many were started in a second."""
    gc.collect()
    before = private_bytes()
    begun = perf_counter()
    waiting = [start() for _ in range(count)]
    gevent.sleep(0)
    gevent.sleep(0)
    rate = count / (perf_counter() - begun)
    size = (private_bytes() - before) / count
    finish(waiting)
    return {"bytes": size, "rate": rate}


def processes_of_ours(count: int) -> Figures:
    return bytes_each(lambda: erps.spawn(erps.receive), end, count)


def processes_of_bare_gevent(count: int) -> Figures:
    def start() -> gevent.Greenlet[..., Any]:
        return gevent.spawn(SimpleQueue().get)

    return bytes_each(start, gevent.killall, count)


CALLS = {"ours": calls_of_ours, "bare": calls_of_bare_gevent}
CHAINS = {"ours": chain_of_ours, "bare": chain_of_bare_gevent}
WEIGHTS = {"ours": processes_of_ours, "bare": processes_of_bare_gevent}


def local_call(_contestant: Any, plan: side.Plan) -> Figures:
    return {"rate": CALLS[plan["who"]](max(1, int(20_000 * plan["seconds"])))}


def local_chain(_contestant: Any, plan: side.Plan) -> Figures:
    return {"rate": CHAINS[plan["who"]](max(1, int(CHAIN * plan["seconds"])))}


def local_processes(_contestant: Any, plan: side.Plan) -> Figures:
    return WEIGHTS[plan["who"]](max(1, int(PROCESSES * min(1.0, plan["seconds"]))))


LOADS = {function.__name__: function for function in (local_call, local_chain, local_processes)}

if __name__ == "__main__":
    side.main(__name__)
