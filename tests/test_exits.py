"""What is ours at the end of a program keeps its place among the user's handlers, however late it is loaded."""

from __future__ import annotations

import textwrap

import pytest
from support import run_python

PROGRAM = """
    import atexit
    atexit.register(print, "a handler of earlier")
    import erps_gevent
    atexit.register(print, "a handler of later")
    from erps_gevent.exits import at_exit
    at_exit(print, "ours")
    {more}
"""


@pytest.fixture
def ended():
    """Run the program with `more` in it; its lines, and what it wrote to standard error."""

    def run(more):
        done = run_python("-c", textwrap.dedent(PROGRAM.format(more=more)))
        return done.stdout.splitlines(), done.stderr

    return run


def test_ours_comes_after_what_was_registered_since_the_import_of_the_package(ended):
    assert ended("") == (["a handler of later", "ours", "a handler of earlier"], "")


def test_what_is_loaded_last_ends_first(ended):
    lines, _ = ended('at_exit(print, "ours of later")')
    assert lines == ["a handler of later", "ours of later", "ours", "a handler of earlier"]


def test_one_that_fails_keeps_no_other_from_its_end(ended):
    lines, errors = ended("at_exit(lambda: 1 / 0)")
    assert lines == ["a handler of later", "ours", "a handler of earlier"]
    assert "ZeroDivisionError" in errors
