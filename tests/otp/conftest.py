"""Fixtures of the tests of the kernel: logs, the clock, supervisors and registries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gevent.event import Event
from otp.kernel import Clock, Log, ended, idle, spawn
from otp.trees import drop

from erps_gevent.otp import inbox, loop
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.primitives import kill
from erps_gevent.otp.process import Pid
from erps_gevent.otp.registry import Registry
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.words import KILLED


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time passes by `clock.advance(seconds, *pids)`, so that no test waits for it."""
    made = Clock()
    for module in (inbox, loop):
        monkeypatch.setattr(module, "monotonic", made)
    return made


@pytest.fixture
def supervise() -> Iterator[Callable[..., Pid]]:
    """Start a Supervisor of these children, one_for_one if nothing else is said; it ends with the test."""
    started: list[Pid] = []

    def start(*children: Any, **options: Any) -> Pid:
        started.append(Supervisor.start_link(children, **{"strategy": "one_for_one", **options}))
        return started[-1]

    yield start
    for pid in started:
        drop(pid)


@pytest.fixture
def dynamic() -> Iterator[Callable[..., Pid]]:
    """Start a DynamicSupervisor; it ends with the test."""
    started: list[Pid] = []

    def start(**options: Any) -> Pid:
        started.append(DynamicSupervisor.start_link(**options))
        return started[-1]

    yield start
    for pid in started:
        drop(pid)


def in_registry(keys: str, **options: Any) -> Iterator[Pid]:
    pid = Registry.start(keys=keys, name="rooms", **options)
    yield pid
    kill(pid)
    ended(pid)


@pytest.fixture
def unique():
    """A registry with unique keys, named "rooms"."""
    yield from in_registry("unique")


@pytest.fixture
def duplicate():
    """A registry with duplicate keys, named "rooms"."""
    yield from in_registry("duplicate")


@pytest.fixture(params=["unique", "duplicate"])
def either(request):
    """A registry of each kind, named "rooms"."""
    yield from in_registry(request.param)


@pytest.fixture
def others():
    """`others(key, value)` is the pid of another process that has registered it; it lives as long as the test."""
    started = []

    def another(*entries, trap=False):
        def main(process):
            for key, value in entries:
                Registry.register("rooms", key, value)
            ready.set()
            idle(process)

        ready = Event()
        process = spawn(main, trap=trap)
        ready.wait()
        started.append(process)
        return process.pid

    yield another
    for process in started:
        process.die(KILLED)
