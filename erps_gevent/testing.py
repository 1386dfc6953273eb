"""A pytest plugin, which pytest loads by itself where this package is installed. Its fixtures:

universe: a universe of its own for each test that asks for it; the value is the link to it.

    def test_a_room_begins_empty(universe):
        assert rooms.people("lobby") == []

What one test registers in a sharded Registry no other test sees: not one that ran before, and not one that runs at the
same time in this Python process, in another greenlet or native thread. The fixture adopts in the greenlet that sets up
the test, which is the one that runs it, and leaves at the end. Processes with `forward_callers=True` follow; a greenlet
or thread that the test starts by other means is handed the value:

    gevent.spawn(in_universe, universe)

    def in_universe(link):
        erps_gevent.universe.adopt(link)

That includes the threads of a plugin that runs one test in several of them. `examples/testing` has a program that needs
all this, and its tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from erps_gevent.otp.universe import Link, fresh


@pytest.fixture
def universe(request: pytest.FixtureRequest) -> Iterator[Link]:
    """Run the test in a new universe; the value is what others adopt to be in it too."""
    with fresh(request.node.name) as link:
        yield link
