"""Parking until something happens, or until time is up."""

from __future__ import annotations

import gevent
import pytest
from gevent.hub import Waiter
from support import MS

from erps_gevent.otp.waiting import TIMED_OUT, answer


@pytest.fixture
def waiter():
    return Waiter()


@pytest.mark.parametrize("seconds", [None, 10.0])
def test_what_the_waiter_is_switched_with_is_the_answer(waiter, seconds):
    waiter.hub.loop.run_callback(waiter.switch, "yes")
    assert answer(waiter, seconds) == "yes"


def test_what_is_thrown_into_the_waiter_is_raised(waiter):
    waiter.hub.loop.run_callback(waiter.throw, KeyError("a"))
    with pytest.raises(KeyError):
        answer(waiter, 10.0)


@pytest.mark.parametrize("seconds", [0.01 * MS, 2 * MS])
def test_time_runs_out_also_in_less_than_a_millisecond(waiter, seconds):
    assert answer(waiter, seconds) is TIMED_OUT


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_no_time_is_no_wait(waiter, seconds):
    turned = []
    waiter.hub.loop.run_callback(turned.append, 1)
    assert answer(waiter, seconds) is TIMED_OUT
    assert turned == []


def test_a_timer_of_a_wait_that_was_interrupted_wakes_nobody_later(waiter):
    with gevent.Timeout(2 * MS, False):
        answer(waiter, 5 * MS)
    gevent.sleep(10 * MS)
    assert not waiter.ready()
