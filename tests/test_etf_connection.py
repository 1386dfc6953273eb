"""Both ends of a line to Erps 0.7: pacing, references, keepalives without an echo, and leaving without a goaway."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from ends import Heard, Scripted, in_time, pair, reading, soon, turn
from faces import PATIENCE, until
from support import MS

from erps_gevent import etf_connection
from erps_gevent.errors import CallTimeout, Disconnected, ErrorReply, IdentifierMismatch
from erps_gevent.etf_connection import EtfClientConnection, EtfServerConnection
from erps_gevent.otp.messages import Call, Cast, StopRequest
from erps_gevent.otp.words import SHUTDOWN
from erps_gevent.server_connection import DISCONNECTED
from erps_gevent.wire.etf import encode
from erps_gevent.wire.etf_session import EtfClientSession, EtfServerSession
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.refusals import Code, Refusal
from erps_gevent.wire.session import State

STAMP = Stamp((1, 0, 0), "lab")
NEVER = 60.0  # seconds: as pacing, a gate that does not open by itself while a test lasts


@pytest.fixture
def server_end():
    """An EtfServerConnection and its scripted client."""
    made = []

    def make(pacing=0):
        near, far = pair()
        connection = EtfServerConnection(near, EtfServerSession(STAMP), PATIENCE, 1000, pacing=pacing)
        connection.await_hello(soon())
        connection.welcome(None)
        made.append((connection, Scripted(far, EtfClientSession(STAMP))))
        return made[-1]

    yield make
    for connection, client in made:
        connection.drop()
        client.stream.close()


@pytest.fixture
def client_end():
    """An EtfClientConnection that is reading, its scripted server, and what its owner was told."""
    made = []

    def make(pacing=0):
        near, far = pair()
        heard = Heard()
        connection = EtfClientConnection(
            near,
            EtfClientSession(STAMP),
            PATIENCE,
            1000,
            heard.pushes.append,
            heard.goaways.append,
            lambda: None,
            pacing=pacing,
        )
        connection.greet(soon())
        made.append((connection, Scripted(far, EtfServerSession(STAMP)), heard, reading(connection)))
        return made[-1][:3]

    yield make
    for connection, server, _, reader in made:
        connection.drop()
        server.stream.close()
        reader.join(PATIENCE)


def asked(client, connection, request):
    """The call as the process gets it."""
    client.say(client.session.call(request, None)[1])
    event = connection.next(soon())
    assert type(event) is Call
    return event


# The client.


def test_a_client_is_connected_without_a_word(client_end):
    _, server, _ = client_end()
    assert server.hears_nothing()


def test_a_call_is_answered(client_end):
    connection, server, _ = client_end()
    caller = gevent.spawn(connection.call, "ping", PATIENCE, PATIENCE)
    call = server.hear(Type.CALL)
    server.say(server.session.reply(call.ref, "pong"))
    assert (call.value, caller.get(timeout=PATIENCE)) == ("ping", "pong")


def test_calls_leave_one_after_the_other_as_their_answers_come(client_end):
    connection, server, _ = client_end(NEVER)
    callers = [gevent.spawn(connection.call, n, None, None) for n in range(4)]
    for n in range(4):
        call = server.hear(Type.CALL)
        assert call.value == n
        assert server.hears_nothing()
        server.say(server.session.reply(call.ref, n))
    assert [caller.get(timeout=PATIENCE) for caller in callers] == [0, 1, 2, 3]


def test_an_error_is_an_answer_too(client_end):
    connection, server, _ = client_end(NEVER)
    callers = [gevent.spawn(connection.call, n, None, None) for n in range(2)]
    call = server.hear(Type.CALL)
    server.say(server.session.refusal(call.ref, Refusal(Code.REPLY, "no", "never")))
    assert server.hear(Type.CALL).value == 1
    with pytest.raises(ErrorReply, match="no: never"):
        callers[0].get(timeout=PATIENCE)


def test_a_push_is_no_answer(client_end):
    connection, server, heard = client_end(NEVER)
    for n in range(2):
        gevent.spawn(connection.call, n, None, None)
    server.hear(Type.CALL)
    server.say(server.session.push("news"))
    until(lambda: heard.pushes == ["news"])
    assert server.hears_nothing()


def test_a_call_that_waits_its_turn_and_times_out_was_not_sent(client_end):
    connection, server, _ = client_end(NEVER)
    gevent.spawn(connection.call, "first", None, None)
    server.hear(Type.CALL)
    with pytest.raises(CallTimeout) as caught:
        connection.call("second", 10 * MS, 10 * MS)
    assert caught.value.sent is False


def test_a_caller_that_gives_up_says_nothing(client_end):
    connection, server, _ = client_end()
    with pytest.raises(CallTimeout) as caught:
        connection.call("slow", 10 * MS, 10 * MS)
    assert caught.value.sent is True
    ref = server.hear(Type.CALL).ref
    assert server.hears_nothing()
    server.say(server.session.reply(ref, "late"))
    until(lambda: connection.late == 1)


def test_a_client_that_closes_says_nothing_and_sends_what_waited(client_end):
    connection, server, _ = client_end(5 * MS)
    for n in range(3):
        connection.cast(n)
    connection.leave_now(Disconnected("enough"))
    assert [server.hear(Type.CAST).value for _ in range(3)] == [0, 1, 2]
    assert server.hears_the_end()


def test_the_text_of_an_error_ends_the_line_and_every_call(client_end):
    connection, server, _ = client_end()
    callers = [gevent.spawn(connection.call, n, None, None) for n in range(2)]
    server.hear(Type.CALL)
    server.say(Stamp((0, 0, 0), "").frame(Type.ERROR, encode("wrong identifier")))
    for caller in callers:
        with pytest.raises(Disconnected) as caught:
            caller.get(timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, IdentifierMismatch)
        assert caught.value.sent is True
        assert "give both ends the same identifier" in str(caught.value)


def test_an_idle_client_sends_keepalives_and_needs_no_echo(client_end):
    connection, server, _ = client_end()
    connection.keepalive.start(10 * MS, 1 * MS)
    for _ in range(4):
        server.hear(Type.KEEPALIVE)
    assert connection.cause is None


def test_a_line_that_is_spoken_on_needs_no_keepalive(client_end):
    connection, server, heard = client_end()
    connection.keepalive.start(NEVER, None)
    server.say(server.session.push(1))
    until(lambda: heard.pushes)
    assert server.hears_nothing()


def test_no_keepalive_goes_behind_a_call_that_is_pending(client_end):
    connection, server, _ = client_end()
    caller = gevent.spawn(connection.call, "slow", None, None)
    ref = server.hear(Type.CALL).ref
    connection.keepalive.start(5 * MS, None)
    gevent.sleep(30 * MS)
    assert server.hears_nothing()
    server.say(server.session.reply(ref, "done"))
    caller.get(timeout=PATIENCE)
    server.hear(Type.KEEPALIVE)


def test_a_line_that_has_ended_has_no_clock(client_end):
    connection, _, _ = client_end()
    connection.keepalive.start(NEVER, None)
    connection.leave_now(Disconnected("enough"))
    connection.keepalive.start(NEVER, None)
    assert connection.keepalive.clock is None


# The server.


def test_a_server_serves_at_once(server_end):
    connection, client = server_end()
    asked(client, connection, "ping").from_.reply("pong")
    assert client.hear(Type.REPLY).value == "pong"


def test_answers_and_pushes_leave_singly(server_end):
    connection, client = server_end(NEVER)
    events = [asked(client, connection, n) for n in range(2)]
    connection.push("news")
    for event in events:
        event.from_.reply("answer")
    assert client.hear(Type.PUSH).value == "news"
    assert client.hears_nothing()
    connection.outbox._open_gate()
    assert client.hear(Type.REPLY).ref == 1


def test_a_keepalive_is_taken_and_not_answered(server_end):
    connection, client = server_end()
    client.say(client.session.keepalive(), client.session.cast("after"))
    assert type(connection.next(soon())) is Cast
    assert client.hears_nothing()


def with_ref(client, ref, request):
    client.session._last_ref = ref - 1
    return client.session.call(request, None)[1]


def test_of_two_calls_with_one_reference_the_second_is_answered(server_end):
    connection, client = server_end()
    client.say(with_ref(client, 7, "one"))
    first = connection.next(soon())
    client.say(with_ref(client, 7, "two"))
    second = connection.next(soon())
    first.from_.reply("for the first")
    assert client.hears_nothing(), "it would go to the second caller"
    second.from_.reply("for the second")
    assert client.hear(Type.REPLY).value == "for the second"
    assert connection.calls == {}


def test_of_two_calls_with_one_reference_the_first_is_not_even_started_if_it_waits(server_end):
    connection, client = server_end()
    client.say(with_ref(client, 7, "one"), with_ref(client, 7, "two"))
    event = connection.next(soon())
    assert event.request == "two"
    assert connection.next(monotonic()) is None


def test_an_idle_line_ends_when_the_daemon_stops(server_end):
    connection, client = server_end()
    waiting = gevent.spawn(connection.next)
    turn()
    connection.goaway()
    event = waiting.get(timeout=PATIENCE)
    assert type(event) is StopRequest
    assert event.reason is SHUTDOWN
    assert client.hears_nothing()


def test_a_line_with_a_call_ends_after_its_answer(server_end):
    connection, client = server_end()
    event = asked(client, connection, "slow")
    connection.goaway()
    waiting = gevent.spawn(connection.next)
    turn(3)
    assert not waiting.dead
    assert connection.session.state is State.LEAVING
    event.from_.reply("done")
    assert type(waiting.get(timeout=PATIENCE)) is StopRequest
    assert client.hear(Type.REPLY).value == "done"


def test_a_line_ends_after_what_waits_has_left(server_end):
    connection, client = server_end(20 * MS)
    for n in range(3):
        connection.push(n)
    connection.goaway()
    with in_time():
        assert type(connection.next()) is StopRequest
    assert [client.hear(Type.PUSH).value for _ in range(3)] == [0, 1, 2]


def test_what_still_comes_is_served_first(server_end):
    connection, client = server_end()
    client.say(client.session.cast("last"))
    connection.goaway()
    assert type(connection.next(soon())) is Cast
    assert type(connection.next(soon())) is StopRequest


def test_a_client_that_leaves_first_is_no_shutdown(server_end):
    connection, client = server_end()
    client.stream.close()
    connection.goaway()
    assert connection.next(soon()).reason is DISCONNECTED


# Calls whose callers have given up: the server is not told, and works on.


def given_up(connection, server):
    """A call that nobody waits for any more, as the server has it."""
    with pytest.raises(CallTimeout):
        connection.call("slow", 5 * MS, 5 * MS)
    return server.hear(Type.CALL)


def test_the_late_answer_to_a_call_that_was_given_up_lets_the_next_packet_go(client_end):
    connection, server, _ = client_end(NEVER)
    call = given_up(connection, server)
    connection.cast("next")
    assert server.hears_nothing()
    server.say(server.session.reply(call.ref, "late"))
    assert server.hear(Type.CAST).value == "next"
    assert connection.late == 1
    assert connection.given_up == {}


def test_no_keepalive_is_said_while_a_call_that_was_given_up_is_unanswered(client_end):
    connection, server, _ = client_end(0)
    call = given_up(connection, server)
    connection.keepalive.start(5 * MS, None)
    gevent.sleep(30 * MS)
    assert server.hears_nothing()
    server.say(server.session.reply(call.ref, "late"))
    server.hear(Type.KEEPALIVE)


def test_a_call_that_is_never_answered_does_not_keep_the_line_silent_for_ever(client_end, monkeypatch):
    monkeypatch.setattr(etf_connection, "GIVEN_UP_FOR", 10 * MS)
    connection, server, _ = client_end(0)
    given_up(connection, server)
    connection.keepalive.start(5 * MS, None)
    server.hear(Type.KEEPALIVE)
    assert connection.given_up == {}
