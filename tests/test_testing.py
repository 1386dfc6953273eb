"""The pytest plugin: its fixture `universe`, in one session and in several at once."""

from __future__ import annotations

import gevent
import pytest
from support import run_python

import erps_gevent as erps
from erps_gevent import Registry

pytest_plugins = ["pytester"]


@pytest.fixture
def before():
    """The universe of this greenlet when no test has another; it is back at the end, as this fixture checks."""
    mine = erps.universe.current()
    yield mine
    assert erps.universe.current() is mine


def test_a_test_is_in_a_universe_of_its_own_and_its_value_is_the_link(before, universe):
    mine = erps.universe.current()
    assert mine is not before
    assert universe == erps.universe.link() == (erps.current(), mine)
    assert "test_a_test_is_in_a_universe_of_its_own" in repr(mine)


def test_others_adopt_the_value(universe):
    def main():
        erps.universe.adopt(universe)
        return erps.universe.current()

    assert gevent.spawn(main).get() is erps.universe.current()


def test_a_universe_is_over_when_it_is_left(pytester):
    pytester.makepyfile("""
        import erps_gevent as erps

        seen = []

        def test_first(universe):
            seen.append(erps.universe.current())
            assert erps.is_alive(seen[0])

        def test_second(universe):
            assert erps.universe.current() is not seen[0]
            assert not erps.is_alive(seen[0])

        def test_third_asks_for_none():
            assert erps.universe.link() == (erps.current(),)
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


@pytest.fixture
def rooms():
    """A registry that other tests leave their entries in."""
    pid = Registry.start(keys="unique", name="rooms", sharded=True)
    yield pid
    erps.kill(pid)


def test_what_was_registered_before_is_not_seen(before, rooms, request):
    Registry.register("rooms", "lobby", "older")
    request.getfixturevalue("universe")
    Registry.register("rooms", "lobby", "mine")
    assert Registry.lookup("rooms", "lobby") == [(erps.current(), "mine")]


TESTS = """\
import erps_gevent as erps
from run import in_both

def test_one(universe):
    in_both(erps.universe.current())

def test_two(universe):
    in_both(erps.universe.current())
"""

# Each session waits in the middle of its test until the other one is there too.
RUN = """\
import queue, sys, threading
import gevent, gevent.queue, pytest

threads = "threads" in sys.argv
boxes = [queue.Queue() if threads else gevent.queue.Queue() for _ in range(2)]
mine = {{}}

def in_both(universe):
    number = mine[threading.get_ident() if threads else gevent.getcurrent()]
    boxes[1 - number].put(universe)
    assert boxes[number].get(timeout=30) is not universe
    boxes[1 - number].put("done")
    assert boxes[number].get(timeout=30) == "done"

def session(number, name):
    mine[threading.get_ident() if threads else gevent.getcurrent()] = number
    ends.append(int(pytest.main([*{options!r}, "test_it.py::" + name], plugins=[])))

if __name__ == "__main__":
    sys.modules["run"] = sys.modules["__main__"]
    ends = []
    def start(number, name):
        if not threads:
            return gevent.spawn(session, number, name)
        thread = threading.Thread(target=session, args=(number, name))
        thread.start()
        return thread
    for one in [start(0, "test_one"), start(1, "test_two")]:
        one.join()
    print(ends)
"""
OPTIONS = ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=no"]


@pytest.mark.parametrize("where", ["greenlets", "threads"])
def test_tests_that_run_at_the_same_time_in_one_python_have_different_ones(where, tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "run.py").write_text(RUN.format(options=OPTIONS))
    child = run_python("run.py", where, cwd=tmp_path)
    assert (child.stdout, child.stderr) == ("[0, 0]\n", "")


def test_importing_it_starts_neither_hub_nor_thread():
    program = (
        "import erps_gevent.testing, threading; from gevent._hub_local import get_hub_if_exists as hub;"
        "print(hub(), threading.active_count())"
    )
    assert run_python("-c", program).stdout.strip() == "None 1"
