"""How long a client waits: ceilings, jitter, and what is retried at the slow rate."""

from __future__ import annotations

import math

import pytest

from erps_gevent import backoff as module
from erps_gevent.backoff import Backoff, lasts
from erps_gevent.errors import (
    BadPacket,
    Disconnected,
    IdentifierMismatch,
    Overloaded,
    ServerExit,
    StartError,
    VersionMismatch,
)

REFUSED = Disconnected("refused", reason="refused")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the back-off believes in; set clock[0]."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def bounds(monkeypatch):
    """The ranges from which delays were drawn; always the highest is drawn."""
    drawn = []

    def uniform(low, high):
        drawn.append((low, high))
        return high

    monkeypatch.setattr(module.random, "uniform", uniform)
    return drawn


def ceilings(backoff, count):
    return [backoff.delay(REFUSED) for _ in range(count)]


def test_ceilings_double_up_to_the_quick_one(clock, bounds):
    assert ceilings(Backoff(60.0), 8) == [0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 0.8]
    assert {low for low, _ in bounds} == {0.0}


def test_after_30_seconds_they_double_up_to_the_cap(clock, bounds):
    backoff = Backoff(60.0)
    ceilings(backoff, 50)
    clock[0] += 29.9
    assert ceilings(backoff, 1) == [0.8]
    clock[0] += 0.2
    assert ceilings(backoff, 9) == [1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0, 60.0]


def test_a_low_cap_holds_from_the_start(clock, bounds):
    backoff = Backoff(0.3)
    assert ceilings(backoff, 5) == [0.05, 0.1, 0.2, 0.3, 0.3]
    clock[0] += 31.0
    assert ceilings(backoff, 2) == [0.3, 0.3]


def test_a_thousand_attempts_overflow_nothing(clock, bounds):
    assert ceilings(Backoff(60.0), 2000)[-1] == 0.8


def test_a_reset_begins_anew(clock, bounds):
    backoff = Backoff(60.0)
    ceilings(backoff, 5)
    clock[0] += 100.0
    ceilings(backoff, 3)
    backoff.reset()
    assert ceilings(backoff, 3) == [0.05, 0.1, 0.2]


def test_the_seconds_count_from_the_first_delay(clock, bounds):
    backoff = Backoff(60.0)
    clock[0] += 1000.0
    assert ceilings(backoff, 5)[-1] == 0.8


def test_delays_are_drawn_from_the_whole_range():
    delays = [Backoff(60.0).delay(REFUSED) for _ in range(500)]
    assert min(delays) < 0.01
    assert max(delays) > 0.04
    assert max(delays) <= 0.05


def test_what_lasts_is_retried_at_the_slow_rate(clock, bounds):
    backoff = Backoff(60.0)
    assert backoff.delay(VersionMismatch("too old")) == 60.0
    assert bounds == [(0.5, 1.0)]
    assert ceilings(backoff, 1) == [0.05]


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (VersionMismatch("x"), True),
        (IdentifierMismatch("x"), True),
        (BadPacket("x"), True),
        (Disconnected("x", reason="unknown_ca"), True),
        (Disconnected("x", reason="certificate_expired"), True),
        (Disconnected("x", reason="refused"), False),
        (Disconnected("x", reason="dns"), False),
        (Overloaded("x"), False),
        (StartError("x"), False),
        (ServerExit("x", reason={"unhashable": []}), False),
        (RuntimeError("x"), False),
    ],
    ids=repr,
)
def test_only_what_somebody_has_to_mend_lasts(error, lasting):
    assert lasts(error) is lasting


@pytest.mark.parametrize(("asked", "added"), [(None, 0.0), (2.0, 2.0), (1e9, 60.0), (-1.0, 0.0), (math.nan, 0.0)])
def test_a_server_that_is_full_says_how_long_it_wants_to_be_left_alone(clock, bounds, asked, added):
    assert Backoff(60.0).delay(Overloaded("full", retry_after=asked)) == pytest.approx(0.05 + added)
