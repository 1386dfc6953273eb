"""The window of restarts, and the pauses before them."""

from __future__ import annotations

import pytest

from erps_gevent.otp.restarts import Backoff, Restarts


def test_as_many_restarts_as_are_allowed_are_fine_and_one_more_is_not():
    restarts = Restarts(3, 5.0)
    assert [restarts.add(now) for now in (0.0, 1.0, 2.0, 5.0)] == [True, True, True, False]


def test_what_is_older_than_the_window_does_not_count():
    restarts = Restarts(1, 5.0)
    assert [restarts.add(now) for now in (0.0, 5.001, 10.002)] == [True, True, True]


def test_the_window_includes_its_edge():
    """supervisor:inPeriod."""
    restarts = Restarts(1, 5.0)
    assert [restarts.add(now) for now in (0.0, 5.0)] == [True, False]


def test_with_no_restarts_allowed_the_first_is_one_too_many():
    assert not Restarts(0, 5.0).add(0.0)


def test_old_restarts_are_not_kept():
    restarts = Restarts(1000, 5.0)
    for now in range(0, 1000, 10):
        restarts.add(float(now))
    assert len(restarts.times) == 1


def test_pauses_double_from_the_first_to_the_longest():
    backoff = Backoff(0.1, 0.5)
    assert [backoff.next() for _ in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


@pytest.mark.parametrize(("lived", "pause"), [(0.5, 0.2), (0.51, 0.1)])
def test_pauses_begin_anew_for_a_child_that_has_lived_longer_than_the_longest(lived, pause):
    backoff = Backoff(0.1, 0.5)
    backoff.next()
    backoff.started(10.0)
    backoff.ended(10.0 + lived)
    assert backoff.next() == pytest.approx(pause)
