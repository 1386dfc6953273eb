"""One timer for many deadlines: it rings at the earliest, asks for the next, and never rings early for anybody."""

from __future__ import annotations

from math import inf
from time import monotonic

import gevent
import pytest
from ends import PATIENCE, block
from gevent.event import Event
from gevent.hub import get_hub
from support import MS

from erps_gevent.alarm import Alarm


class Bell:
    """Notes when it rang; what it answers is the next of `others`, or never."""

    def __init__(self):
        self.others = []
        self.rang = []
        self.event = Event()
        self.alarm = Alarm(get_hub(), self.ring)

    def ring(self, now):
        self.rang.append(now)
        self.event.set()
        return self.others.pop(0) if self.others else inf

    def wait(self, count):
        with gevent.Timeout(PATIENCE):
            while len(self.rang) < count:
                self.event.wait()
                self.event.clear()


@pytest.fixture
def bell():
    bell = Bell()
    yield bell
    bell.alarm.stop()


def test_it_rings_at_the_deadline_and_then_no_more(bell):
    deadline = monotonic() + 3 * MS
    bell.alarm.set(deadline)
    assert bell.alarm.at == deadline
    bell.wait(1)
    assert bell.alarm.at == inf
    gevent.sleep(5 * MS)
    assert len(bell.rang) == 1


def test_an_earlier_deadline_takes_the_place_of_a_later_one(bell):
    bell.alarm.set(monotonic() + PATIENCE)
    bell.alarm.set(monotonic() + 2 * MS)
    bell.wait(1)
    assert len(bell.rang) == 1


def test_it_is_set_again_to_what_it_is_told_when_it_rings(bell):
    second = monotonic() + 10 * MS
    bell.others = [second]
    bell.alarm.set(monotonic() + MS)
    bell.wait(1)
    assert bell.alarm.at == second
    bell.wait(2)


def test_a_deadline_that_was_set_while_it_rang_stands_if_it_is_the_earlier_one(bell):
    sooner, later = monotonic() + 10 * MS, monotonic() + PATIENCE

    def ring(now):
        bell.alarm.set(sooner)
        return later

    alarm = bell.alarm = Alarm(get_hub(), ring)
    alarm.set(monotonic() + MS)
    with gevent.Timeout(PATIENCE):
        while alarm.at != sooner:
            gevent.sleep(MS)
    assert alarm.at == sooner


def test_one_that_has_passed_already_rings_at_the_next_turn(bell):
    bell.alarm.set(monotonic() - 1)
    bell.wait(1)


def test_the_time_that_was_computed_before_does_not_count(bell):
    gevent.sleep(0)
    block(20 * MS)  # The loop has not looked at the clock since.
    begun = monotonic()
    bell.alarm.set(begun + 15 * MS)
    bell.wait(1)
    assert bell.rang[0] >= begun + 10 * MS  # libuv counts in milliseconds


def test_a_stopped_one_does_not_ring(bell):
    bell.alarm.set(monotonic() + MS)
    bell.alarm.stop()
    bell.alarm.stop()
    gevent.sleep(5 * MS)
    assert bell.rang == []
    assert bell.alarm.at == inf
