"""The server's end of a line: turns, bounds, what is dropped and what is not, and who is told what."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from ends import MEBIBYTE, STAMP, Scripted, block, dialled, in_time, pair, put, server_end, soon, turn, welcomed
from faces import KINDS, PATIENCE, wire
from support import MS

from erps_gevent import server_connection
from erps_gevent.errors import (
    BadPacket,
    CallTimeout,
    Disconnected,
    EncodeError,
    ErrorReply,
    IdentifierMismatch,
    Overloaded,
)
from erps_gevent.otp import inbox
from erps_gevent.otp.inbox import TURN_EVENTS
from erps_gevent.otp.messages import Call, Cast, StopRequest
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.server_connection import DISCONNECTED, LOOK_EVENTS, LOOK_SIZE, ServerConnection
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.refusals import Code
from erps_gevent.wire.session import ClientSession, ServerSession

SLACK = 512 * 1024  # bytes above a bound: what one read can cause


@pytest.fixture
def made():
    connections = []
    yield connections
    for connection, client in connections:
        connection.drop()
        client.stream.close()


@pytest.fixture
def line(made):
    made.append(welcomed())
    return made[-1]


@pytest.fixture
def connection(line):
    return line[0]


@pytest.fixture
def client(line):
    return line[1]


def casts(client: Scripted, *values: object) -> list[bytes]:
    return [client.session.cast(value) for value in values]


def asked(client: Scripted, connection: ServerConnection, request: object = "go", remaining: float | None = None):
    """The call as the process gets it."""
    client.say(client.session.call(request, remaining)[1])
    event = connection.next(soon())
    assert isinstance(event, Call)
    return event


# Events in turns.


def test_calls_and_casts_come_in_the_order_in_which_they_were_sent(connection, client):
    client.say(*casts(client, 1, 2), client.session.call("three", None)[1])
    events = [connection.next(soon()) for _ in range(3)]
    assert [type(event) for event in events] == [Cast, Cast, Call]
    assert [event.request for event in events] == [1, 2, "three"]


def test_the_line_and_the_mailbox_take_turns(connection, client):
    client.say(*casts(client, 0, 1, 2))
    first = connection.next(soon())
    for message in "abc":
        connection.put(message)
    rest = [connection.next(soon()) for _ in range(5)]
    assert [getattr(event, "request", event) for event in (first, *rest)] == [0, "a", 1, "b", 2, "c"]


def test_a_mailbox_that_is_never_empty_does_not_silence_the_line(connection, client):
    client.say(*casts(client, "heard"))
    connection.put("again")
    for _ in range(3 * TURN_EVENTS):
        event = connection.next(soon())
        if isinstance(event, Cast):
            return
        connection.put(event)
    pytest.fail("the line was never read")


def test_a_mailbox_that_is_never_empty_does_not_keep_a_lost_line_alive(connection, client):
    client.say(*casts(client, "last"), client.session.bye())
    connection.put("again")
    seen = []
    while len(seen) < 3 * TURN_EVENTS and not isinstance(seen[-1:] and seen[-1], StopRequest):
        seen.append(connection.next(soon()))
        connection.put("again")
    assert isinstance(seen[-1], StopRequest)
    assert [event.request for event in seen if isinstance(event, Cast)] == ["last"]


def test_next_gives_up_at_its_deadline(connection):
    with in_time():
        assert connection.next(monotonic() + 5 * MS) is None


def test_a_message_wakes_a_parked_server(connection):
    waiting = gevent.spawn(connection.next)
    turn(2)
    connection.put("message")
    assert waiting.get(timeout=PATIENCE) == "message"


def test_a_busy_server_lets_the_others_have_a_turn_after_64_events(connection, client, monkeypatch):
    monkeypatch.setattr(inbox, "TURN_SECONDS", PATIENCE)
    client.say(*casts(client, *range(4 * TURN_EVENTS)))
    between = runs_of_events(connection, 4 * TURN_EVENTS)
    assert max(between) <= TURN_EVENTS


def test_a_busy_server_lets_the_others_have_a_turn_after_5_ms(connection, client):
    client.say(*casts(client, *range(20)))
    between = runs_of_events(connection, 20, lambda: block(6 * MS))
    assert max(between) <= 2


def runs_of_events(connection, count, work=lambda: None):
    """How many events were served in a row before another greenlet ran, each time."""
    runs, current = [], 0

    def other():
        nonlocal current
        while True:
            runs.append(current)
            current = 0
            gevent.sleep(0)

    greenlet = gevent.spawn(other)
    for _ in range(count):
        assert isinstance(connection.next(soon()), Cast)
        current += 1
        work()
    greenlet.kill()
    return [*runs, current]


# What is not started any more.


def test_a_call_whose_deadline_has_passed_is_not_started(connection, client):
    client.say(client.session.call("late", 0.0)[1], *casts(client, "next"))
    assert connection.next(soon()).request == "next"
    assert connection.calls == {}


def test_a_call_that_was_cancelled_is_not_started(connection, client):
    ref, call = client.session.call("given up", None)
    client.say(call, client.session.cancel(ref), *casts(client, "next"))
    assert connection.next(soon()).request == "next"
    assert connection.calls == {}


def test_a_cancel_of_a_call_that_was_started_is_seen_by_its_handler_and_its_reply_is_dropped(connection, client):
    event = asked(client, connection)
    client.say(client.session.cancel(1))
    connection.look()
    assert event.from_.remaining() == 0.0
    event.from_.reply("nobody")
    assert client.hears_nothing()


def test_the_remaining_time_of_a_caller_is_known(connection, client):
    event = asked(client, connection, remaining=PATIENCE)
    assert PATIENCE - 1 < event.from_.remaining() <= PATIENCE


def test_a_crash_report_names_the_peer_that_called(connection, client):
    event = asked(client, connection)
    assert repr(event.from_) == f"<From {connection.stream.peer}>"


def test_casts_before_a_bye_are_still_executed_and_calls_are_not(connection, client):
    client.say(*casts(client, 1), client.session.call("nobody waits", None)[1], *casts(client, 2), client.session.bye())
    events = [connection.next(soon()) for _ in range(3)]
    assert [getattr(event, "request", None) for event in events] == [1, 2, None]
    assert events[2].reason == DISCONNECTED
    assert connection.cause.reason == "bye"


def test_the_end_of_the_line_stops_the_process(connection, client):
    client.stream.close()
    assert connection.next(soon()).reason == DISCONNECTED
    assert connection.cause.reason == "closed"
    assert "the client closed the line" in str(connection.cause)


def test_a_line_cut_in_the_middle_of_a_packet_is_named(connection, client):
    client.say(client.session.cast("half")[:50])
    client.stream.close()
    connection.next(soon())
    assert isinstance(connection.cause, BadPacket)


def test_garbage_ends_the_line_after_what_came_before_it(connection, client):
    client.say(*casts(client, "good"), b"GET / HTTP/1.1\r\n\r\n")
    assert connection.next(soon()).request == "good"
    assert connection.next(soon()).reason == DISCONNECTED
    assert isinstance(connection.cause, BadPacket)


# Bounds.


def test_a_call_too_many_is_refused_at_once(made):
    connection, client = welcomed(max_pending=2)
    made.append((connection, client))
    client.say(*(client.session.call(n, None)[1] for n in range(3)))
    started = [connection.next(soon()) for _ in range(2)]
    packet = client.hear(Type.ERROR)
    assert (packet.ref, packet.value.code) == (3, Code.OVERLOADED)
    assert "max_pending" in packet.value.message
    started[0].from_.reply("done")
    assert client.hear(Type.REPLY).value == "done"
    assert asked(client, connection, "fits again").request == "fits again"


@pytest.mark.volume
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["calls", "calls too many", "keepalives"])
def test_a_flood_from_a_peer_that_does_not_read_keeps_memory_flat(made, certs, kind, what):
    limit = {"calls too many": 1}.get(what, 1000)
    near, far = dialled(wire(kind, certs))
    connection, client = welcomed(max_pending=limit, streams=(far, near))
    made.append((connection, client))
    largest = [0]

    def serve():
        while isinstance(event := connection.next(), Call):
            if what == "calls":
                event.from_.reply(bytes(1000))
            largest[0] = max(largest[0], connection.outbox.size, len(connection.events) * 100)

    def flood():
        while True:
            frames = [
                client.session.keepalive() if what == "keepalives" else client.session.call(0, None)[1]
                for _ in range(500)
            ]
            client.say(*frames)
            largest[0] = max(largest[0], connection.outbox.size)

    serving, flooding = gevent.spawn(serve), gevent.spawn(flood)
    if what == "keepalives":
        # They are answered only while there is room, so this flood is read, and its echoes are dropped: a quarter of a
        # million packets.
        with in_time():
            while connection.session.received_bytes < 2 * MEBIBYTE:
                gevent.sleep(1 * MS)
    else:
        stuck(connection)
    gevent.killall([flooding, serving])
    assert largest[0] <= HIGH_WATER + SLACK


def stuck(connection):
    """Wait until the connection reads no more."""
    with in_time():
        before = -1
        while connection.outbox.size <= HIGH_WATER or before != connection.session.received_bytes:
            before = connection.session.received_bytes
            gevent.sleep(10 * MS)


def test_the_mailbox_goes_on_while_the_peer_does_not_read(connection, client):
    connection.push(bytes(4 * MEBIBYTE))
    turn(2)
    assert connection.outbox.size > HIGH_WATER
    client.say(*casts(client, "unread"))
    waiting = gevent.spawn(lambda: [connection.next(soon()), connection.next(soon())])
    turn(3)
    connection.put("first")
    turn(3)
    connection.put("second")
    assert waiting.get(timeout=PATIENCE) == ["first", "second"]
    client.hear(Type.PUSH)
    assert connection.next(soon()).request == "unread"


# While a handler is parked.


def test_a_look_answers_a_keepalive_once(connection, client):
    client.say(client.session.keepalive())
    connection.look()
    client.hear(Type.KEEPALIVE)
    assert client.hears_nothing()


def test_a_look_keeps_what_it_has_read_for_later(connection, client):
    client.say(*casts(client, 1, 2))
    connection.look()
    assert [connection.next(soon()).request for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("how", ["bye", "closed"])
def test_a_look_sees_the_end(connection, client, how):
    if how == "bye":
        client.say(client.session.bye())
    else:
        client.stream.close()
    connection.look()
    assert connection.cause.reason == how


def test_a_keepalive_and_a_bye_in_one_read_are_no_error(connection, client):
    client.say(client.session.keepalive(), client.session.bye())
    connection.look()
    assert connection.cause.reason == "bye"


def test_a_look_reads_ahead_a_bounded_count_of_events(connection, client):
    sender = gevent.spawn(lambda: [client.say(*casts(client, *range(1000))) for _ in range(100)])
    with in_time():
        while len(connection.events) < LOOK_EVENTS:
            gevent.sleep(1 * MS)
            connection.look()
    for _ in range(20):
        gevent.sleep(1 * MS)
        connection.look()
    sender.kill()
    assert len(connection.events) < LOOK_EVENTS + 65536 // 96 + 1


def test_a_look_reads_ahead_a_bounded_count_of_bytes(connection, client):
    sender = gevent.spawn(lambda: [client.say(*casts(client, bytes(100_000))) for _ in range(100)])
    with in_time():
        while connection.session.received_bytes < LOOK_SIZE:
            gevent.sleep(1 * MS)
            connection.look()
    for _ in range(20):
        gevent.sleep(1 * MS)
        connection.look()
    sender.kill()
    assert connection.session.received_bytes < LOOK_SIZE + SLACK


def test_a_look_counts_what_was_deflated_as_what_it_became(connection, client):
    client.session._deflates, client.session._level = True, 6
    for _ in range(10):
        client.say(*casts(client, bytes(LOOK_SIZE)))
        connection.look()
    assert len(connection.events) == 1
    assert connection.session.received_bytes < LOOK_SIZE / 100


def test_a_look_ends_soon_whatever_the_peer_sends(connection, client, monkeypatch):
    keepalives, reads = client.session.keepalive() * 7000, []
    monkeypatch.setattr(type(connection.stream), "receive", lambda self, room: reads.append(1) or keepalives)
    monkeypatch.setattr(type(connection.outbox), "write", lambda self, frame: None)
    connection.look()
    assert 1 <= len(reads) <= 4  # by its size it could read 16 times


# Answers.


def test_a_reply_goes_to_its_call(connection, client):
    first, second = asked(client, connection), asked(client, connection)
    second.from_.reply("b")
    first.from_.reply("a")
    assert [(packet.ref, packet.value) for packet in (client.hear(Type.REPLY), client.hear(Type.REPLY))] == [
        (2, "b"),
        (1, "a"),
    ]
    assert connection.calls == {}
    assert connection.calls_served == 2


def test_an_error_reply_is_an_answer(connection, client):
    asked(client, connection).from_.fail(ErrorReply("sold_out", "none left", {"left": 0}))
    assert client.hear(Type.ERROR).value[:4] == (Code.REPLY, "sold_out", "none left", {"left": 0})


def test_a_reply_that_cannot_be_encoded_raises_and_the_caller_is_told(connection, client):
    with pytest.raises(EncodeError):
        asked(client, connection).from_.reply(object())
    packet = client.hear(Type.ERROR)
    assert (packet.ref, packet.value.code, packet.value.kind) == (1, Code.EXIT, "EncodeError")
    assert connection.calls == {}


def test_an_error_reply_that_cannot_be_encoded_raises_and_the_caller_is_told(connection, client):
    with pytest.raises(EncodeError):
        asked(client, connection).from_.fail(ErrorReply("odd", "", object()))
    packet = client.hear(Type.ERROR)
    assert (packet.ref, packet.value.code, packet.value.kind) == (1, Code.EXIT, "EncodeError")
    assert connection.calls == {}


def test_a_reply_waits_for_room(connection, client):
    event = asked(client, connection)
    connection.push(bytes(4 * MEBIBYTE))
    replying = gevent.spawn(event.from_.reply, "patient")
    turn(3)
    assert not replying.dead
    client.hear(Type.PUSH)
    assert client.hear(Type.REPLY).value == "patient"


@pytest.mark.parametrize("how", ["reply", "fail"])
def test_a_reply_that_finds_no_room_is_replaced_by_a_word_and_the_line_lives(connection, client, monkeypatch, how):
    monkeypatch.setattr(server_connection, "ROOM_TIMEOUT", 5 * MS)
    event = asked(client, connection)
    connection.push(bytes(4 * MEBIBYTE))
    with in_time():
        if how == "reply":
            event.from_.reply(bytes(1000))
        else:
            event.from_.fail(ErrorReply("large", "", bytes(1000)))
    assert connection.cause is None
    client.hear(Type.PUSH)
    packet = client.hear(Type.ERROR)
    assert (packet.ref, packet.value.code, packet.value.kind) == (1, Code.EXIT, "CallTimeout")


def test_a_reply_on_a_line_that_is_lost_is_dropped(connection, client):
    event = asked(client, connection)
    connection.push(bytes(4 * MEBIBYTE))
    replying = gevent.spawn(event.from_.reply, "too late")
    turn(2)
    connection.drop()
    replying.get(timeout=PATIENCE)
    asked_before = connection.calls
    assert asked_before == {}


def test_a_push_waits_for_room_within_its_timeout(connection):
    connection.push(bytes(4 * MEBIBYTE))
    with pytest.raises(CallTimeout), in_time():
        connection.push("no room", timeout=5 * MS)


def test_a_push_on_a_lost_line_says_why(connection):
    connection.lose(Disconnected("the cable was cut"))
    with pytest.raises(Disconnected, match="the cable was cut") as caught:
        connection.push("x")
    assert caught.value.__cause__ is connection.cause
    assert caught.value.sent is False


def test_a_push_that_waits_for_room_fails_when_the_line_is_lost(connection):
    connection.push(bytes(4 * MEBIBYTE))
    pushing = gevent.spawn(connection.push, "x", None)
    turn()
    connection.drop()
    with pytest.raises(Disconnected):
        pushing.get(timeout=PATIENCE)


# The beginning.


def test_pushes_of_init_come_after_the_welcome(made):
    connection, client = server_end()
    made.append((connection, client))
    client.say(client.session.hello())
    connection.await_hello(soon())
    connection.push("one")
    connection.push("two")
    turn()
    assert client.hears_nothing()
    connection.welcome(None)
    client.hear(Type.WELCOME)
    assert [client.hear(Type.PUSH).value for _ in range(2)] == ["one", "two"]


def test_pushes_of_an_init_that_failed_are_not_sent(made):
    connection, client = server_end()
    made.append((connection, client))
    client.say(client.session.hello())
    connection.await_hello(soon())
    connection.push("in vain")
    parting = gevent.spawn(connection.say_farewell, Overloaded("full", retry_after=3.0))
    packet = client.hear(Type.ERROR)
    assert (packet.ref, packet.value.code, packet.value.data) == (None, Code.OVERLOADED, 3.0)
    assert client.hears_the_end()
    client.stream.close()
    parting.get(timeout=PATIENCE)


@pytest.mark.parametrize("how", ["bye", "closed"])
def test_a_client_that_left_during_init_is_not_welcomed(made, how):
    connection, client = server_end()
    made.append((connection, client))
    client.say(client.session.hello())
    connection.await_hello(soon())
    if how == "bye":
        client.say(client.session.bye())
    else:
        client.stream.shutdown_write()
    assert isinstance(connection.next(soon()), StopRequest)
    connection.welcome(None)
    connection.goaway()
    assert client.hears_nothing()


def test_silence_instead_of_a_hello_ends_at_the_deadline(made):
    connection, client = server_end()
    made.append((connection, client))
    with pytest.raises(Disconnected, match="no hello") as caught, in_time():
        connection.await_hello(monotonic() + 5 * MS)
    assert caught.value.reason == "handshake_timeout"


@pytest.mark.parametrize("cut", [0, 1, 9, 50, 100])
def test_a_hello_may_come_in_pieces(made, cut):
    connection, client = server_end()
    made.append((connection, client))
    hello = client.session.hello()
    waiting = gevent.spawn(connection.await_hello, soon())
    client.say(hello[:cut])
    turn(2)
    client.say(hello[cut:])
    waiting.get(timeout=PATIENCE)


def test_a_wrong_identifier_is_refused_by_name(made):
    near, far = pair()
    connection = ServerConnection(near, ServerSession(STAMP), PATIENCE, 10)
    client = Scripted(far, ClientSession(Stamp((1, 0, 0), "other")))
    made.append((connection, client))
    client.say(client.session.hello())
    with pytest.raises(IdentifierMismatch) as caught:
        connection.await_hello(soon())
    parting = gevent.spawn(connection.say_farewell, caught.value)
    assert client.hear(Type.ERROR).value.code == Code.IDENTIFIER
    assert client.hears_the_end()
    client.stream.close()
    parting.get(timeout=PATIENCE)


def test_a_client_that_leaves_before_its_hello_is_no_error_of_ours(made):
    connection, client = server_end()
    made.append((connection, client))
    client.stream.close()
    with pytest.raises(Disconnected):
        connection.await_hello(soon())


# The end.


def test_goaway_asks_once_the_line_is_open_and_what_arrives_is_still_served(connection, client):
    call = client.session.call("crossed", None)[1]
    connection.goaway()
    client.hear(Type.GOAWAY)
    client.say(call)
    connection.next(soon()).from_.reply("served")
    assert client.hear(Type.REPLY).value == "served"


def test_goaway_after_a_bye_is_nothing(connection, client):
    client.say(client.session.bye())
    connection.next(soon())
    connection.goaway()
    assert client.hears_nothing()


def test_a_farewell_to_a_client_that_said_bye_is_a_close(connection, client):
    client.say(client.session.bye())
    connection.next(soon())
    with in_time():
        connection.say_farewell(Overloaded("full"))
    assert connection.stream.fileno() == -1
    assert client.hears_the_end()


def test_a_farewell_comes_after_the_last_replies(connection, client):
    event = asked(client, connection)
    event.from_.reply(bytes(2 * MEBIBYTE))
    parting = gevent.spawn(connection.say_farewell, Overloaded("full"))
    assert len(client.hear(Type.REPLY).value) == 2 * MEBIBYTE
    assert client.hear(Type.ERROR).value.code == Code.OVERLOADED
    client.stream.close()
    parting.get(timeout=PATIENCE)


def test_a_farewell_whose_facts_cannot_be_sent_is_said_without_them(connection, client):
    parting = gevent.spawn(connection.say_farewell, ErrorReply("odd", "", object()))
    assert client.hear(Type.ERROR).value[:3] == (Code.EXIT, "ErrorReply", "")
    client.stream.close()
    parting.get(timeout=PATIENCE)


def test_what_a_client_sends_after_the_line_is_closed_hurts_nobody(connection, client):
    connection.drop()
    with pytest.raises(Disconnected):
        put(client.stream, bytes(MEBIBYTE))
    connection.look()
    assert isinstance(connection.next(soon()), StopRequest)
