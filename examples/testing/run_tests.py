"""Two test-suites: of a server and its client, and of a program that has something global.

counter.py has a server and a client. Their tests, in test_counter.py, start daemons and clients with fixtures, and run
over memory, TCP and two-way TLS: one fixture says so.

    python -m pytest test_counter.py

rooms.py keeps chat rooms in one registry for the whole program. Its tests, in test_rooms.py, all use the same room, and
each expects to find it empty. One after the other, as always:

    python -m pytest test_rooms.py

At the same time in one Python process, each in a greenlet of its own:

    python run_tests.py

Both pass, because pytest.ini gives each test a universe of its own, and the registry keeps the rooms of each universe
apart. Without it each finds the other in its lobby, and both fail:

    python run_tests.py --without-universe

Why one wants this: tests that wait for sockets and timers take as long as the slowest of them when they run together,
and nobody has to find a new name for each room, nor to clean up after each test.
"""

import sys

import gevent
import pytest

import erps_gevent as erps

TESTS = ["test_who_enters_the_lobby_first_is_alone", "test_who_leaves_the_lobby_leaves_it_empty"]
# Two sessions of pytest would fight for the terminal and for what is printed.
OPTIONS = ["-p", "no:terminal", "--capture=no"]


class Report:
    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            why = f": {report.longrepr.reprcrash.message.splitlines()[0]}" if report.failed else ""
            print(f"{report.nodeid.partition('::')[2]} {report.outcome}{why}", flush=True)


def run(test, options, link):
    erps.universe.adopt(link)  # as a program does: what it starts is in its own universe, until a test has another
    return pytest.main([f"test_rooms.py::{test}", *OPTIONS, *options], plugins=[Report()])


if __name__ == "__main__":
    options = ["-o", "usefixtures="] if "--without-universe" in sys.argv else []
    sessions = [gevent.spawn(run, test, options, erps.universe.link()) for test in TESTS]
    sys.exit(max(session.get() for session in sessions))
