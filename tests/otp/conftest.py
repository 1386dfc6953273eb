"""Fixtures of the tests of supervisors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from otp.kernel import Log
from otp.trees import drop

from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.process import Pid
from erps_gevent.otp.supervisor import Supervisor


@pytest.fixture
def log() -> Log:
    return Log()


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
