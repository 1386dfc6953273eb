"""An exit is thrown again until it has arrived. What is time is shortened here."""

from __future__ import annotations

import logging

import gevent
import pytest
from gevent.event import Event
from support import MS

from erps_gevent.errors import Exit
from erps_gevent.otp import thrower
from erps_gevent.otp.thrower import Thrower


class Stubborn(gevent.Greenlet):
    """Swallows the first `count` exits; `caught` has their reasons."""

    def __init__(self, count):
        super().__init__(self.hold, count)
        self.caught = []

    def hold(self, count):
        while len(self.caught) < count:
            try:
                Event().wait()
            except BaseException as error:  # noqa: BLE001  the very thing under test
                self.caught.append(error)


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(thrower, "RETHROW", 2 * MS)


def throw(greenlet, reason="why"):
    greenlet.start()
    gevent.sleep(0)
    made = Thrower(gevent.get_hub(), greenlet, "pid", reason)
    made.throw_soon()
    return made


def test_an_exit_is_thrown_once_if_it_arrives(soon, caplog):
    greenlet = Stubborn(1)
    made = throw(greenlet)
    greenlet.join()
    made.stop()
    assert [type(error) for error in greenlet.caught] == [Exit]
    assert greenlet.caught[0].reason == "why"
    assert caplog.records == []


def test_a_swallowed_exit_is_thrown_again_with_a_warning_from_the_second_on(soon, caplog):
    """Case 91, rules 17: `except BaseException` swallows a kill."""
    greenlet = Stubborn(3)
    made = throw(greenlet)
    greenlet.join()
    made.stop()
    gevent.sleep(0)
    assert len(greenlet.caught) == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages[0] == "'pid' swallowed its exit 'why'; thrown again"


def test_nothing_is_thrown_after_it_was_stopped():
    greenlet = Stubborn(1)
    made = throw(greenlet)
    made.stop()
    made.stop()
    gevent.sleep(0)
    assert greenlet.caught == []
    greenlet.kill()


def test_one_that_was_raised_by_hand_is_thrown_if_it_was_swallowed(soon):
    greenlet = Stubborn(1)
    greenlet.start()
    gevent.sleep(0)
    made = Thrower(gevent.get_hub(), greenlet, "pid", "why")
    made.throw_later()
    assert greenlet.caught == []
    greenlet.join()
    made.stop()
    assert len(greenlet.caught) == 1
