"""The client's end of a line: greetings, calls and every way in which they end, and leaving."""

from __future__ import annotations

import os
from time import monotonic

import gevent
import pytest
from ends import (
    MEBIBYTE,
    Line,
    client_end,
    dialled,
    in_time,
    reading,
    soon,
    turn,
)
from faces import KINDS, PATIENCE, until, wire
from support import MS

from erps_gevent.errors import (
    BadPacket,
    CallTimeout,
    Disconnected,
    ErrorReply,
    Overloaded,
    ServerExit,
    StartError,
    VersionMismatch,
)
from erps_gevent.otp.inbox import TURN_EVENTS
from erps_gevent.otp.reasons import Shutdown, to_plain
from erps_gevent.wire.packet import KEEPALIVE, Type
from erps_gevent.wire.refusals import Code, Refusal, refusal_of
from erps_gevent.wire.session import State


@pytest.fixture
def lines():
    made = []

    def make(*args, **kwargs):
        made.append(Line(*args, **kwargs))
        return made[-1]

    yield make
    for line in made:
        line.close()


@pytest.fixture
def line(lines):
    return lines()


@pytest.fixture
def server(line):
    return line.server


@pytest.fixture
def ungreeted():
    connection, server, heard = client_end()
    yield connection, server, heard
    connection.drop()
    server.stream.close()


# The greeting.


def test_silence_instead_of_a_welcome_ends_at_the_deadline(ungreeted):
    connection, *_ = ungreeted
    with pytest.raises(Disconnected, match="no welcome") as caught, in_time():
        connection.greet(monotonic() + 5 * MS)
    assert caught.value.reason == "connect_timeout"
    assert caught.value.sent is False


@pytest.mark.parametrize(
    ("why", "type_"),
    [
        (VersionMismatch("too old"), VersionMismatch),
        (Overloaded("full", retry_after=2.0), Overloaded),
        (StartError("init raised"), StartError),
    ],
)
def test_a_refusal_is_raised_as_what_the_server_said(ungreeted, why, type_):
    connection, server, _ = ungreeted
    greeting = gevent.spawn(connection.greet, soon())
    server.hear(Type.HELLO)
    server.say(server.session.refusal(None, refusal_of(why)))
    server.stream.close()
    with pytest.raises(type_) as caught:
        greeting.get(timeout=PATIENCE)
    assert str(caught.value) == str(why)
    assert getattr(caught.value, "retry_after", None) == getattr(why, "retry_after", None)


def test_a_server_that_closes_instead_of_welcoming(ungreeted):
    connection, server, _ = ungreeted
    server.stream.close()
    with pytest.raises(Disconnected):
        connection.greet(soon())


def test_garbage_instead_of_a_welcome(ungreeted):
    connection, server, _ = ungreeted
    server.say(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(BadPacket):
        connection.greet(soon())


def test_what_comes_with_the_welcome_waits_for_the_reader(ungreeted):
    connection, server, heard = ungreeted
    greeting = gevent.spawn(connection.greet, soon())
    server.hear(Type.HELLO)
    session = server.session
    server.say(session.welcome(None, 10), session.push("one"), session.push("two"), session.goaway())
    greeting.get(timeout=PATIENCE)
    assert heard.pushes == []
    assert heard.goaways == []
    reading(connection)
    assert heard.pushes == ["one", "two"]
    assert heard.goaways == [connection]


def test_the_server_may_allow_fewer_calls(lines):
    line = lines(max_pending=1000, server_pending=2)
    first, _, third = line.asks(), line.asks(), line.asks()
    with pytest.raises(Overloaded, match="max_pending") as caught:
        third.get(timeout=PATIENCE)
    assert caught.value.sent is False
    line.server.hear(Type.CALL)
    line.server.say(line.server.session.reply(1, "done"))
    assert first.get(timeout=PATIENCE) == "done"
    assert line.asks().started


# Calls.


def test_replies_find_their_callers_in_any_order(line, server):
    callers = [line.asks(n) for n in range(10)]
    refs = [server.hear(Type.CALL).ref for _ in callers]
    server.say(*(server.session.reply(ref, f"to {ref}") for ref in reversed(refs)))
    assert [caller.get(timeout=PATIENCE) for caller in callers] == [f"to {ref}" for ref in refs]
    assert line.connection.answered
    assert line.connection.pending == {}


def test_a_call_tells_how_long_it_waits(line, server):
    line.asks(timeout=PATIENCE)
    assert 0 < server.hear(Type.CALL).meta["t"] <= PATIENCE


def test_an_error_reply_is_raised_in_its_caller(line, server):
    caller = line.asks()
    server.hear(Type.CALL)
    server.say(server.session.refusal(1, refusal_of(ErrorReply("sold_out", "none left", 0))))
    with pytest.raises(ErrorReply) as caught:
        caller.get(timeout=PATIENCE)
    assert (caught.value.kind, caught.value.message, caught.value.data) == ("sold_out", "none left", 0)


def test_the_deadline_ends_a_call_and_the_server_is_told(line, server):
    caller = line.asks("slow", timeout=5 * MS)
    with in_time(1000 * MS), pytest.raises(CallTimeout) as caught:
        caller.get()
    assert caught.value.sent is True
    assert caught.value.request == "slow"
    assert server.hear(Type.CALL).ref == server.hear(Type.CANCEL).ref == 1
    assert line.connection.pending == {}


@pytest.mark.parametrize("how", ["reply", "refusal"])
def test_a_late_answer_is_dropped_and_counted(line, server, how):
    with pytest.raises(CallTimeout):
        line.asks("slow", timeout=5 * MS).get(timeout=PATIENCE)
    server.hear(Type.CALL)
    late = server.session.reply(1, "late") if how == "reply" else server.session.refusal(1, Refusal(1, "late", ""))
    caller = line.asks("next")
    server.say(late, server.session.reply(2, "in time"))
    assert caller.get(timeout=PATIENCE) == "in time"
    assert line.connection.late == 1


def test_a_call_that_had_not_left_when_its_time_was_over_was_surely_not_executed(line, server):
    line.connection.cast(bytes(4 * MEBIBYTE))
    with pytest.raises(CallTimeout) as caught:
        line.asks("queued", timeout=5 * MS).get(timeout=PATIENCE)
    assert caught.value.sent is False
    line.connection.cast("after")
    assert len(server.hear(Type.CAST).value) == 4 * MEBIBYTE
    assert server.hear(Type.CAST).value == "after"


@pytest.mark.parametrize("how", ["kill", "Timeout"])
def test_a_caller_that_is_torn_away_forgets_its_call_and_nothing_else(line, server, how):
    neighbour, caller = line.asks("stays"), line.asks("goes")
    if how == "kill":
        caller.kill()
    else:
        caller.kill(gevent.Timeout())
    assert list(line.connection.pending) == [1]
    assert [server.hear(type_).ref for type_ in (Type.CALL, Type.CALL, Type.CANCEL)] == [1, 2, 2]
    server.say(server.session.reply(1, "well"))
    assert neighbour.get(timeout=PATIENCE) == "well"


@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_killed_in_the_middle_of_16_mib_leaves_the_stream_whole(lines, certs, kind):
    line = lines(streams=dialled(wire(kind, certs)))
    big = os.urandom(15 * MEBIBYTE)
    before = [line.asks(("before", n)) for n in range(20)]
    victim = line.asks(big)
    after = [line.asks(("after", n)) for n in range(20)]
    assert line.connection.outbox.size > MEBIBYTE
    victim.kill()
    heard = [line.server.hear(Type.CALL) for _ in range(41)]
    assert [packet.ref for packet in heard] == list(range(1, 42))
    assert heard[20].value == big
    assert line.server.hear(Type.CANCEL).ref == 21
    session = line.server.session
    line.server.say(*(session.reply(packet.ref, packet.value) for packet in heard if packet.ref != 21))
    echoed = [caller.get(timeout=PATIENCE) for caller in before + after]
    assert echoed == [(when, n) for when in ("before", "after") for n in range(20)]


def test_a_line_lost_while_a_request_was_encoded_fails_the_call_unsent(line):
    encode = line.connection.session.call

    def slow(request, remaining):
        line.connection.leave_now(Disconnected("closed meanwhile"))
        return encode(request, remaining)

    line.connection.session.call = slow
    with pytest.raises(Disconnected, match="closed meanwhile") as caught:
        line.asks().get(timeout=PATIENCE)
    assert caught.value.sent is False
    assert line.connection.pending == {}


# The end of the line.


def test_every_pending_call_is_failed_once_and_knows_whether_it_was_sent(line, server):
    sent = line.asks("sent")
    server.hear(Type.CALL)
    begun = line.asks(bytes(4 * MEBIBYTE))
    queued = line.asks("queued")
    server.stream.close()
    errors = []
    for caller in (sent, begun, queued):
        with pytest.raises(Disconnected) as caught:
            caller.get(timeout=PATIENCE)
        errors.append(caught.value)
    assert [error.sent for error in errors] == [True, True, False]
    assert [error.request == "queued" for error in errors] == [False, False, True]
    assert {error.__cause__ for error in errors} == {line.connection.cause}
    assert line.connection.pending == {}


def test_a_server_that_ends_says_why_to_every_caller(line, server):
    callers = [line.asks(n) for n in range(3)]
    for _ in callers:
        server.hear(Type.CALL)
    server.say(server.session.refusal(None, Refusal(Code.EXIT, "KeyError", "'sku'")))
    for number, caller in enumerate(callers):
        with pytest.raises(ServerExit) as caught:
            caller.get(timeout=PATIENCE)
        assert (caught.value.kind, caught.value.message, caught.value.request) == ("KeyError", "'sku'", number)
    assert len({id(caller.exception) for caller in callers}) == 3


def test_an_exit_reason_comes_as_what_it_was(line, server):
    caller = line.asks()
    server.hear(Type.CALL)
    reason = Shutdown("enough")
    server.say(server.session.refusal(None, Refusal(Code.EXIT, "Shutdown", "", None, to_plain(reason))))
    with pytest.raises(ServerExit) as caught:
        caller.get(timeout=PATIENCE)
    assert caught.value.reason == reason


def test_a_server_killed_in_the_middle_of_a_packet_is_a_lost_line_and_no_broken_rule(line, server):
    server.say(server.session.push(bytes(1000))[:500])
    server.stream.close()
    cause = line.reader.get(timeout=PATIENCE)
    assert type(cause) is Disconnected
    assert isinstance(cause.__cause__, BadPacket)


def test_a_server_that_never_stops_talking_leaves_the_others_their_turns(line, monkeypatch):
    turns = []
    others = gevent.spawn(lambda: [turns.append(gevent.sleep(0)) for _ in range(1000)])

    chunks = iter([KEEPALIVE] * (100 * TURN_EVENTS))
    monkeypatch.setattr(type(line.connection.stream), "receive", lambda *_: next(chunks, b""))
    line.connection.stream.drained = False
    line.connection.readable = True
    line.connection.wake()
    line.reader.join(timeout=PATIENCE)
    others.kill()
    assert line.reader.dead
    assert len(turns) >= 50


def test_a_line_that_is_left_while_its_reader_gives_others_their_turn_ends(line, server, monkeypatch):
    leave_now = line.connection.leave_now

    def take_turn(_):
        leave_now(Disconnected("left"))

    monkeypatch.setattr(type(line.connection), "take_turn", take_turn)
    server.say(server.session.push("wakes the reader"))
    line.reader.join(timeout=PATIENCE)
    assert line.reader.dead


def test_a_reader_that_is_killed_leaves_nobody_waiting(line):
    caller = line.asks()
    line.reader.kill()
    with pytest.raises(Disconnected):
        caller.get(timeout=PATIENCE)
    assert line.connection.stream.fileno() == -1


def test_a_late_death_of_a_caller_whose_line_is_gone_is_harmless(line, server):
    caller = line.asks()
    server.stream.close()
    line.reader.join(timeout=PATIENCE)
    caller.kill()
    assert line.connection.pending == {}
    assert line.connection.outbox.size == 0


def test_a_reply_is_there_as_soon_as_it_comes(line, server):
    """Nobody looks from time to time: when the loop has nothing else to do it has come, and no clock had to pass."""
    caller = line.asks()
    server.say(server.session.reply(server.hear(Type.CALL).ref, "gone"))
    for _ in range(5):  # libuv has a turn for each
        gevent.idle()
    assert caller.value == "gone"


def test_garbage_on_an_open_line_ends_it_and_every_caller_is_told(line, server):
    callers = [line.asks(), line.asks()]
    server.hear(Type.CALL)
    server.say(b"HTTP/1.1 400 Bad Request")
    for caller in callers:
        with pytest.raises(Disconnected, match="a packet starts with") as caught:
            caller.get(timeout=PATIENCE)
        assert caught.value.sent is True
        assert isinstance(caught.value.__cause__, BadPacket)
    assert isinstance(line.reader.get(timeout=PATIENCE), BadPacket)


# Leaving.


def test_a_line_that_is_left_says_bye_when_its_last_reply_is_in(line, server):
    callers = [line.asks(n) for n in range(2)]
    for _ in callers:
        server.hear(Type.CALL)
    server.say(server.session.goaway())
    until(lambda: line.heard.goaways)
    line.connection.leave()
    server.say(server.session.reply(1, "a"))
    assert callers[0].get(timeout=PATIENCE) == "a"
    assert server.hears_nothing()
    server.say(server.session.reply(2, "b"))
    assert callers[1].get(timeout=PATIENCE) == "b"
    server.hear(Type.BYE)
    assert server.hears_the_end()


def test_a_line_without_calls_is_left_at_once(line, server):
    line.connection.leave()
    server.hear(Type.BYE)
    assert server.hears_the_end()
    server.stream.close()
    assert line.reader.get(timeout=PATIENCE).reason == "bye"


def test_a_caller_that_gives_up_as_the_last_one_lets_the_line_go(line, server):
    caller = line.asks()
    server.hear(Type.CALL)
    server.say(server.session.goaway())
    until(lambda: line.heard.goaways)
    line.connection.leave()
    turn()
    caller.kill()
    server.hear(Type.CANCEL)
    server.hear(Type.BYE)


def test_a_line_that_is_lost_while_it_is_left_fails_its_last_calls(line, server):
    caller = line.asks()
    server.hear(Type.CALL)
    line.connection.leave()
    server.stream.close()
    with pytest.raises(Disconnected) as caught:
        caller.get(timeout=PATIENCE)
    assert caught.value.sent is True


def test_leaving_now_fails_what_is_pending_and_says_bye(line, server):
    caller = line.asks()
    server.hear(Type.CALL)
    line.connection.leave_now(Disconnected("closed", reason="closed"))
    with pytest.raises(Disconnected, match="closed"):
        caller.get(timeout=PATIENCE)
    server.hear(Type.BYE)


def test_casts_before_the_bye_arrive(line, server):
    line.connection.cast("one")
    line.connection.cast(bytes(4 * MEBIBYTE))
    line.connection.leave_now(Disconnected("closed", reason="closed"))
    assert server.hear(Type.CAST).value == "one"
    assert len(server.hear(Type.CAST).value) == 4 * MEBIBYTE
    server.hear(Type.BYE)


def test_closing_a_line_that_the_server_has_just_ended_says_no_bye(ungreeted):
    connection, server, _ = ungreeted
    greeting = gevent.spawn(connection.greet, soon())
    server.hear(Type.HELLO)
    server.say(server.session.refusal(None, refusal_of(Overloaded("full"))))
    with pytest.raises(Overloaded):
        greeting.get(timeout=PATIENCE)
    connection.leave_now(Disconnected("closed"))
    assert connection.session.state is State.CLOSED
    connection.finish()
    assert server.hears_the_end()
