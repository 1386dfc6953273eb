"""What both ends of a line share: which cause stands, how last words are said, and that nothing is left open."""

from __future__ import annotations

import os
import socket
from time import monotonic

import gevent
import pytest
from ends import MEBIBYTE, STAMP, dialled, got, greeted, in_time, pair, put, soon, turn, welcomed
from faces import KINDS, PATIENCE, wire
from support import MS

from erps_gevent import connection as module
from erps_gevent.connection import Connection
from erps_gevent.errors import Disconnected, IdentifierMismatch, Overloaded
from erps_gevent.otp.inbox import Inbox
from erps_gevent.wire.packet import KEEPALIVE, Type
from erps_gevent.wire.refusals import refusal_of
from erps_gevent.wire.session import ServerSession


class Plain(Connection[ServerSession]):
    """The shared half alone."""

    def __init__(self, stream, session=None, send_timeout=PATIENCE):
        super().__init__(stream, session or ServerSession(STAMP), send_timeout)
        self.taken = []

    def take(self, packet):
        self.taken.append(packet)

    def ended(self):
        return Disconnected("the peer closed")


@pytest.fixture
def ends():
    near, far = pair()
    connection = Plain(near)
    yield connection, far
    connection.drop()
    far.close()


@pytest.fixture
def connection(ends):
    return ends[0]


@pytest.fixture
def far(ends):
    return ends[1]


# Which cause stands.


def test_the_first_cause_stands(connection):
    first = Disconnected("first")
    connection.lose(first)
    connection.lose(Disconnected("second"))
    assert connection.cause is first


def test_what_the_server_said_wins_over_a_write_that_failed():
    connection, server, _ = greeted()
    why = Overloaded("every server is taken")
    server.say(server.session.refusal(None, refusal_of(why)))
    server.stream.close()
    with pytest.raises(Disconnected):
        for _ in range(3):
            connection.cast("into the void")
            turn()
    assert connection.doubt is not None
    assert connection.cause is None
    assert connection.more(soon())
    assert isinstance(connection.cause, Overloaded)
    connection.drop()


def test_a_write_that_failed_is_the_cause_when_nothing_better_was_said():
    connection, server, _ = greeted()
    server.stream.close()
    with pytest.raises(Disconnected):
        for _ in range(3):
            connection.cast("into the void")
            turn()
    connection.more(soon())
    assert isinstance(connection.cause, Disconnected)
    connection.drop()


def test_a_failed_write_wakes_the_reader(connection, far):
    waiting = gevent.spawn(connection.more, None)
    turn(2)
    connection._write_failed(Disconnected("the write failed"))
    assert waiting.get(timeout=PATIENCE)
    connection.more(soon())
    assert str(connection.cause) == "the write failed"


def test_a_doubted_line_is_not_read_for_ever(monkeypatch):
    connection, client = welcomed()
    monkeypatch.setattr(type(connection.stream), "receive", lambda *_: KEEPALIVE * 10)
    connection.doubt = Disconnected("the write failed")
    connection.more(soon())
    assert connection.cause is connection.doubt
    connection.drop()
    client.stream.close()


# Parking.


def stopped(connection):
    with in_time():
        while connection.watcher.active:
            gevent.sleep(0)


def test_the_watcher_stops_itself_when_nobody_is_parked_for_the_socket(connection, far):
    connection.pull()
    assert not connection.watcher.active
    waiting = gevent.spawn(connection.park, soon())
    turn()
    assert connection.watcher.active
    assert connection.listening
    put(far, b"x")
    waiting.get(timeout=PATIENCE)
    assert connection.readable
    assert not connection.listening
    stopped(connection)
    assert connection.readable


def test_one_that_is_parked_for_its_mailbox_alone_is_not_woken_by_the_socket(connection, far):
    connection.pull()
    waiting = gevent.spawn(connection.park, None)
    turn()
    connection.wake()
    waiting.get(timeout=PATIENCE)
    alone = gevent.spawn(Inbox.park, connection, None)
    put(far, b"x")
    stopped(connection)
    assert not alone.dead
    assert connection.readable
    connection.wake()
    alone.get(timeout=PATIENCE)


def test_a_killed_reader_leaves_nobody_parked(connection):
    connection.pull()
    waiting = gevent.spawn(connection.more, None)
    turn()
    waiting.kill()
    assert not connection.listening
    assert connection.parked is None


# Last words.


def test_last_words_are_read_although_the_peer_had_sent_more_than_was_read(connection, far):
    put(far, bytes(100_000))
    parting = gevent.spawn(connection.part, b"farewell")
    assert got(far) == b"farewell"
    far.close()
    parting.get(timeout=PATIENCE)
    assert connection.stream.fileno() == -1


@pytest.mark.parametrize("kind", KINDS)
def test_last_words_come_after_all_that_was_written_at_the_pace_of_the_peer(certs, kind):
    near, far = dialled(wire(kind, certs))
    connection = Plain(near)
    big = os.urandom(4 * MEBIBYTE)
    connection.outbox.write(big)
    parting = gevent.spawn(connection.part, b"farewell")
    turn(3)
    assert not parting.dead
    assert got(far) == big + b"farewell"
    far.close()
    parting.get(timeout=PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ends_that_part_with_full_buffers_do_not_wait_for_each_other(certs, kind):
    near, far = dialled(wire(kind, certs))
    one, other = Plain(near), Plain(far)
    one.outbox.write(bytes(4 * MEBIBYTE))
    other.outbox.write(bytes(4 * MEBIBYTE))
    partings = [gevent.spawn(one.part, b"bye"), gevent.spawn(other.part, b"bye")]
    gevent.joinall(partings, timeout=PATIENCE, raise_error=True)
    assert all(parting.successful() for parting in partings)


def test_a_peer_that_does_not_close_is_waited_for_a_bounded_time(connection, far, monkeypatch):
    monkeypatch.setattr(module, "LINGER", 10 * MS)
    before = monotonic()
    with in_time():
        connection.part(b"farewell")
    assert monotonic() - before >= 10 * MS
    assert got(far) == b"farewell"


def test_a_peer_that_goes_on_talking_is_heard_a_bounded_time_and_the_hub_turns(connection, monkeypatch):
    monkeypatch.setattr(module, "LINGER", 300 * MS)
    monkeypatch.setattr(type(connection.stream), "receive", lambda self: bytes(65536))
    turns = []

    def count():
        while True:
            turns.append(1)
            gevent.sleep(0)

    counting = gevent.spawn(count)
    with in_time():
        connection.part()
    counting.kill()
    assert len(turns) > 10


def test_a_peer_that_takes_nothing_is_given_up_after_send_timeout():
    near, far = pair()
    connection = Plain(near, send_timeout=10 * MS)
    connection.outbox.write(bytes(4 * MEBIBYTE))
    with in_time():
        connection.part(b"unheard")
    assert near.fileno() == -1
    far.close()


def test_a_peer_that_closes_while_the_rest_is_said_ends_it(connection, far):
    connection.outbox.write(bytes(4 * MEBIBYTE))
    parting = gevent.spawn(connection.part, b"unheard")
    turn(3)
    far.close()
    parting.get(timeout=PATIENCE)
    assert connection.stream.fileno() == -1


def test_a_peer_that_has_shut_its_side_can_still_be_told(connection, far):
    far.shutdown_write()
    connection.outbox.write(bytes(2 * MEBIBYTE))
    parting = gevent.spawn(connection.part, b"farewell")
    assert got(far)[-8:] == b"farewell"
    parting.get(timeout=PATIENCE)


def test_a_killed_parting_closes_the_socket(connection, far):
    connection.outbox.write(bytes(4 * MEBIBYTE))
    parting = gevent.spawn(connection.part, b"unheard")
    turn(2)
    parting.kill()
    assert connection.stream.fileno() == -1


def test_a_corked_connection_says_its_last_words_only(connection, far):
    connection.outbox.corked = True
    connection.outbox.write(b"pushed in init")
    parting = gevent.spawn(connection.part, b"sorry")
    assert got(far) == b"sorry"
    far.close()
    parting.get(timeout=PATIENCE)


def test_parting_after_the_outbox_failed_is_a_close(connection):
    connection.outbox.close(Disconnected("gone"))
    with in_time():
        connection.part(b"unheard")
    assert connection.stream.fileno() == -1


# Closing.


def test_dropping_twice_is_dropping_once(connection):
    connection.drop()
    first = connection.cause
    connection.drop()
    assert connection.cause is first
    assert connection.stream.fileno() == -1


def test_dropping_a_connection_that_is_parked_elsewhere_wakes_it(connection):
    connection.pull()
    waiting = gevent.spawn(connection.more, None)
    turn(2)
    connection.drop()
    assert waiting.get(timeout=PATIENCE)
    assert connection.cause is not None


def test_a_dropped_descriptor_can_be_used_again_at_once(connection, far):
    """A watcher left on it would see what happens to its next owner."""
    connection.outbox.write(bytes(4 * MEBIBYTE))
    waiting = gevent.spawn(connection.more, None)
    turn(2)
    number = connection.stream.fileno()
    connection.drop()
    near, other = socket.socketpair()
    with near, other:
        assert number in (near.fileno(), other.fileno())
        other.send(b"not yours")
        near.send(b"nor this")
        waiting.get(timeout=PATIENCE)
        turn(3)
        assert near.recv(100) == b"not yours"


def test_a_refusal_reaches_a_client_that_was_already_sending():
    connection, client = welcomed()
    client.say(*(client.session.cast(bytes(1000)) for _ in range(50)))
    parting = gevent.spawn(connection.say_farewell, IdentifierMismatch("not here"))
    assert client.hear(Type.ERROR).value.kind == "IdentifierMismatch"
    client.stream.close()
    parting.get(timeout=PATIENCE)
