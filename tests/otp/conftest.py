"""What the tests of the registry share: registries named "rooms", and processes that have entries in them."""

from __future__ import annotations

import pytest
from gevent.event import Event
from otp.kernel import ended, idle, spawn

from erps_gevent.otp.primitives import kill
from erps_gevent.otp.registry import Registry
from erps_gevent.otp.words import KILLED


def in_registry(keys, **options):
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
