"""When a client asks whether its server is still there, and when it believes that it is not."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from ends import Line, block, turn
from faces import PATIENCE, until
from support import MS

from erps_gevent.wire.packet import Type


@pytest.fixture
def line():
    made = Line()
    yield made
    made.close()


@pytest.fixture
def server(line):
    return line.server


def test_silence_is_answered_with_a_keepalive_and_its_echo_keeps_the_line(line, server):
    line.connection.keepalive.start(10 * MS, 300 * MS)
    for _ in range(60):  # in all, twice dead_after
        server.hear(Type.KEEPALIVE)
        server.say(server.session.keepalive())
    assert line.connection.cause is None


def test_after_an_echo_and_a_stop_of_the_whole_process_it_asks_again(line, server):
    line.connection.keepalive.asked = monotonic() - 2
    line.connection.heard = monotonic() - 1
    line.connection.keepalive.start(10 * MS, None)
    server.hear(Type.KEEPALIVE)


def test_a_line_that_is_heard_of_needs_no_keepalive(line, server):
    line.connection.keepalive.start(200 * MS, None)
    for _ in range(10):
        gevent.sleep(30 * MS)
        server.say(server.session.push("news"))
    assert server.hears_nothing()


def test_no_echo_ends_the_line_after_dead_after(line, server):
    before = monotonic()
    line.connection.keepalive.start(10 * MS, 50 * MS)
    cause = line.reader.get(timeout=PATIENCE)
    assert (cause.reason, cause.sent) == ("timeout", True)
    assert "did not answer a keepalive" in str(cause)
    assert monotonic() - before >= 45 * MS
    server.hear(Type.KEEPALIVE)
    assert server.hears_the_end()


def test_one_keepalive_is_enough(line, server):
    line.connection.keepalive.start(10 * MS, 100 * MS)
    line.reader.get(timeout=PATIENCE)
    server.hear(Type.KEEPALIVE)
    assert server.hears_the_end()


def test_no_echo_never_ends_a_line_with_calls_pending(line, server):
    caller = line.asks()
    line.connection.keepalive.start(5 * MS, 20 * MS)
    server.hear(Type.CALL)
    server.hear(Type.KEEPALIVE)
    gevent.sleep(60 * MS)
    assert line.connection.cause is None
    server.say(server.session.reply(1, "at last"))
    assert caller.get(timeout=PATIENCE) == "at last"


def test_without_dead_after_no_silence_ends_the_line(line, server):
    line.connection.keepalive.start(5 * MS, None)
    server.hear(Type.KEEPALIVE)
    gevent.sleep(40 * MS)
    assert line.connection.cause is None


def test_an_echo_that_came_while_this_process_was_stopped_counts(line, server):
    line.connection.keepalive.start(10 * MS, 200 * MS)
    server.hear(Type.KEEPALIVE)
    server.say(server.session.keepalive())
    # Before the loop can see it, more time passes than a dead line is given.
    block(300 * MS)
    turn(4)
    gevent.sleep(5 * MS)
    assert line.connection.cause is None


def test_a_line_that_was_asked_to_be_left_sends_no_keepalive(line, server):
    line.asks()
    server.hear(Type.CALL)
    server.say(server.session.goaway())
    until(lambda: line.heard.goaways)
    line.connection.keepalive.start(2 * MS, None)
    gevent.sleep(20 * MS)
    assert server.hears_nothing()


def test_the_clock_stops_with_the_line(line):
    line.connection.keepalive.start(5 * MS, None)
    line.close()
    assert line.connection.keepalive.clock is None
