"""One registry of rooms for all tests of this Python process; pytest.ini gives each test a universe of its own."""

from contextlib import suppress

import pytest
import rooms

import erps_gevent as erps


@pytest.fixture(scope="session", autouse=True)
def registry():
    with suppress(erps.AlreadyStarted):  # by another session
        rooms.start(sharded=True)
