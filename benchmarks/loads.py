"""What a driver does in one round, whoever the contestant is; and how that is measured.

A load is a function of the contestant's module and the plan, and returns the figures of the round: `rate` is calls (or
what the case counts) per second, times are microseconds, memory is bytes. Every round has fresh lines, warms up, and
works for `plan["seconds"]`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from figures import quantile

Plan = dict[str, Any]
Figures = dict[str, float]
MICRO = 1e6
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
WARM_UP = 0.2  # of plan["seconds"]


def value_of(plan: Plan) -> Any:
    """What is sent there and back."""
    if plan.get("kind") == "dicts":
        return [
            {"id": number, "name": f"item {number}", "price": number / 4, "in_stock": True} for number in range(1000)
        ]
    return b"x" * plan["size"]


def cpu_of(pid: int) -> float:
    """Seconds of processor time that the process has had, all its threads together."""
    return time.clock_gettime((~pid << 3) | 2)  # its CPU clock: clock_getcpuclockid(3)


class Meter:
    """What a stretch of work took: seconds on the wall, and of processor time at both ends."""

    def __init__(self, plan: Plan) -> None:
        self.server: int | None = plan.get("server_pid")
        self.seconds = self.client_cpu = self.server_cpu = 0.0

    def __enter__(self) -> Meter:
        self._begun = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.client_cpu, self.server_cpu = (
            now - before for now, before in zip(self._now(), self._begun, strict=True)
        )

    def _now(self) -> tuple[float, float, float]:
        return perf_counter(), time.process_time(), cpu_of(self.server) if self.server else 0.0

    def figures(self, count: int, **more: float) -> Figures:
        return {
            "rate": count / self.seconds,
            "client_cpu": self.client_cpu / count * MICRO,
            "server_cpu": self.server_cpu / count * MICRO,
            **more,
        }


@contextmanager
def lines(contestant: Any, plan: Plan, count: int) -> Iterator[list[Any]]:
    """So many lines to the server, open for the length of a `with`."""
    opened: list[Any] = []
    try:
        for _ in range(count):
            opened.append(contestant.connect(plan))
        yield opened
    finally:
        for line in opened:
            line.close()


def sequential(contestant: Any, plan: Plan) -> Figures:
    """One caller, who asks again when it has its answer."""
    if plan.get("idle"):
        keep_idle(contestant, plan)
    with lines(contestant, plan, 1) as (line,):
        value = value_of(plan)
        check(line, value)
        call_until(line.call, value, perf_counter() + plan["seconds"] * WARM_UP)
        with Meter(plan) as meter:
            times = call_until(line.call, value, perf_counter() + plan["seconds"])
    return meter.figures(len(times), **quantiles_of(times))


def quantiles_of(times: list[float]) -> Figures:
    ordered = sorted(times)
    return {name: quantile(ordered, of) * MICRO for name, of in QUANTILES.items()}


def call_until(call: Callable[[Any], Any], value: Any, end: float) -> list[float]:
    """The times of the calls, in seconds; at least one."""
    times: list[float] = []
    before = perf_counter()
    while True:
        call(value)
        now = perf_counter()
        times.append(now - before)
        if now >= end:
            return times
        before = now


def together(contestant: Any, plan: Plan) -> Figures:
    """Many callers at once, each as above, spread over plan["connections"] lines."""
    value = value_of(plan)
    with lines(contestant, plan, plan["connections"]) as opened:
        check(opened[0], value)
        calls = [opened[number % len(opened)].call for number in range(plan["callers"])]
        all_until(contestant, calls, value, perf_counter() + plan["seconds"] * WARM_UP)
        with Meter(plan) as meter:
            count = all_until(contestant, calls, value, perf_counter() + plan["seconds"])
    return meter.figures(count)


def all_until(contestant: Any, calls: list[Callable[[Any], Any]], value: Any, end: float) -> int:
    counts: list[int] = []

    def caller(call: Callable[[Any], Any]) -> None:
        count = 0
        while True:
            call(value)
            count += 1
            if perf_counter() >= end:
                counts.append(count)
                return

    contestant.gather([lambda call=call: caller(call) for call in calls])
    assert len(counts) == len(calls), "a caller failed"
    return sum(counts)


def check(line: Any, value: Any) -> None:
    """An echo that does not echo would win every race."""
    answer = line.call(value)
    if answer is not None and answer != value:
        raise AssertionError("the server did not echo the value")


_idle: list[Any] = []


def keep_idle(contestant: Any, plan: Plan) -> None:
    """Open plan["idle"] lines once, which stay open beside the one that calls, in this and all later rounds."""
    while len(_idle) < plan["idle"]:
        _idle.append(contestant.connect(plan))


def casts(contestant: Any, plan: Plan) -> Figures:
    """Messages one way, and one call behind them that says they have arrived."""
    value = value_of(plan)
    with lines(contestant, plan, 1) as (line,):
        cast_until(line, value, perf_counter() + plan["seconds"] * WARM_UP)
        with Meter(plan) as meter:
            count = cast_until(line, value, perf_counter() + plan["seconds"])
    return meter.figures(count)


def cast_until(line: Any, value: Any, end: float) -> int:
    cast, count = line.cast, 0
    while perf_counter() < end or not count:
        for _ in range(100):
            cast(value)
        count += 100
    line.confirm(count)
    return count


def pushes(contestant: Any, plan: Plan) -> Figures:
    """The server sends one message to all its clients; the next when all have it."""
    with contestant.audience(plan) as audience:
        audience.hear(1)
        with Meter(plan) as meter:
            count, end = 0, perf_counter() + plan["seconds"]
            while perf_counter() < end or not count:
                audience.hear(1)
                count += plan["connections"]
    return meter.figures(count)


def connects(contestant: Any, plan: Plan) -> Figures:
    """Lines made, from TCP to the first word of the server, and closed; plan["callers"] at a time."""

    def dial(_: Any) -> None:
        contestant.connect(plan).close()

    dials = [dial] * plan["callers"]
    all_until(contestant, dials, None, perf_counter() + plan["seconds"] * WARM_UP)
    with Meter(plan) as meter:
        count = all_until(contestant, dials, None, perf_counter() + plan["seconds"])
    return meter.figures(count)


def idle(contestant: Any, plan: Plan) -> Figures:
    """Memory that a line takes at the server which says nothing."""
    with lines(contestant, plan, min(100, plan["connections"])):
        pass  # what is made once is made now
    before = private_bytes(plan["server_pid"])
    # Not closed: the processes of this round end with it.
    opened = [contestant.connect(plan) for _ in range(plan["connections"])]
    contestant.gather([lambda: opened[-1].call(value_of(plan))])
    if open_files(plan["server_pid"]) < len(opened):
        raise AssertionError("the server has dropped some of the lines")
    return {"bytes": (private_bytes(plan["server_pid"]) - before) / len(opened)}


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def private_bytes(pid: int | str = "self") -> int:
    """Memory that the process has and shares with no other."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        fields = [line.split() for line in rollup]
    return 1024 * sum(int(field[1]) for field in fields if field[0] in ("Private_Clean:", "Private_Dirty:"))


LOADS: dict[str, Callable[[Any, Plan], Figures]] = {
    function.__name__: function for function in (sequential, together, casts, pushes, connects, idle)
}
