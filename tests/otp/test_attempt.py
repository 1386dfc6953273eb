"""A function that may fail without ending the process it runs in."""

from __future__ import annotations

import gevent
import pytest
from otp.kernel import as_process, ended, spawn

from erps_gevent.errors import Exit
from erps_gevent.otp.attempt import attempt
from erps_gevent.otp.primitives import exit_


def raise_(error):
    raise error


def test_what_it_returns_and_no_failure():
    assert as_process(lambda process: attempt(process, divmod, 7, 2)) == ((3, 1), None)


@pytest.mark.parametrize("error", [KeyError("x"), Exit("why"), SystemExit(3), gevent.Timeout()], ids=repr)
def test_what_it_raises_is_its_failure(error):
    assert as_process(lambda process: attempt(process, raise_, error)) == (None, error)


@pytest.mark.parametrize("error", [gevent.GreenletExit(), KeyboardInterrupt()], ids=repr)
def test_a_kill_and_ctrl_c_are_not_its_own(error):
    def main(process):
        with pytest.raises(type(error)):
            attempt(process, raise_, error)
        return True

    assert as_process(main)


def test_an_exit_on_its_way_into_the_process_passes():
    assert ended(spawn(lambda process: attempt(process, exit_, process.pid, "signal"))) == "signal"
