"""The hosts themselves: what the other modules here rely on."""

from __future__ import annotations

import os
import signal

import pytest
from hosts import Host

TALKER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready at 4747", flush=True)
time.sleep(60)
"""
PARENT = "import os; print('parent of', os.fork(), flush=True); import time; time.sleep(60)"


def test_a_host_is_waited_for_by_what_it_logs_and_stopped_by_a_signal(start):
    host = start(Host, "-c", TALKER)
    assert host.wait_for(r"ready at (\d+)") == ["4747"]
    assert host.stop(signal.SIGTERM) == 7
    assert host.log == "ready at 4747\n"


def test_what_a_host_never_says_is_an_error_as_soon_as_it_has_ended(start):
    host = start(Host, "-c", "print('other')")
    with pytest.raises(AssertionError, match="'ready' is 0 times in the log, not 2"):
        host.wait_for("ready", count=2)


def test_what_a_host_has_started_is_killed_with_it(start):
    host = start(Host, "-c", PARENT)
    (child,) = map(int, host.wait_for(r"parent of ([1-9]\d*)"))
    os.kill(child, 0)
    host.kill()
    host.kill()
    assert host._ended, "the child had held the other end of the pipe"
