"""Calls that are sent now and waited for later."""

from __future__ import annotations

import gc
import weakref

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, Probe, as_process, ended, idle, settle, spawn
from support import MS

from erps_gevent.errors import CallExit, CallTimeout, ConfigError, ErrorReply, Exit, NoProc, ServerExit
from erps_gevent.otp.gen import stop
from erps_gevent.otp.messages import NoReply, Reply, Stop
from erps_gevent.otp.primitives import exit_
from erps_gevent.otp.requests import RequestId, receive_response, send_request, wait_response
from erps_gevent.otp.words import KILL, NOPROC


@pytest.fixture
def log():
    return []


@pytest.fixture
def server(log):
    pid = Probe.start(log, name="probe")
    yield pid
    exit_(pid, KILL)
    ended(pid)


@pytest.fixture
def dead():
    pid = Probe.start()
    stop(pid)
    return pid


@pytest.fixture
def go():
    return Event()


def never(_server, _from):
    return NoReply()


def refuse(_server, _from):
    raise ErrorReply("busy", "later")


def raise_(error):
    raise error


WAITS = [wait_response, receive_response]


@pytest.mark.parametrize("wait", WAITS)
def test_async_request(server, dead, wait, go):
    """Case 41, GS send_request: wait returns reply, error(noproc), error(reason), timeout then reply."""
    asked = send_request(server, "hello")
    assert isinstance(asked, RequestId)
    assert wait(asked) == "hello"
    for target in (dead, "no such name", None):
        with pytest.raises(NoProc) as gone:
            wait(send_request(target, "hello"))
        assert gone.value.reason is NOPROC
        assert gone.value.request == "hello"
        assert gone.value.sent is False
    slow = send_request("probe", lambda *_: go.wait() and Reply("late"))
    with pytest.raises(CallTimeout, match=r"'probe' did not answer in 0\.002 s") as caught:
        wait_response(slow, 2 * MS)
    assert (caught.value.reason, caught.value.sent) == ("timeout", True)
    go.set()
    assert wait(slow) == "late"
    ending = send_request(server, lambda *_: raise_(Exit("why")))
    with pytest.raises(ServerExit) as ended_:
        wait(ending)
    assert ended_.value.reason == "why"


def test_an_error_reply_is_an_answer(server):
    refused = send_request(server, refuse)
    with pytest.raises(ErrorReply, match="busy: later"):
        wait_response(refused, None)


def test_the_reply_may_come_before_anybody_waits_for_it(server):
    asked = send_request(server, "early")
    assert server.call("next") == "next"
    assert wait_response(asked, 0) == "early"


def test_a_look_that_finds_nothing_leaves_the_request_as_it_is(server):
    """What check_response does in OTP."""
    asked = send_request(server, "hello")
    with pytest.raises(CallTimeout):
        wait_response(asked, 0)
    assert wait_response(asked) == "hello"


def test_a_request_is_sent_after_what_was_sent_before(server, log):
    server.cast("first")
    asked = send_request(server, "second")
    server.cast("third")
    wait_response(asked)
    server.call("last")
    assert [what for _, what in log] == ["first", "second", "third", "last"]


def test_the_mailbox_of_the_caller_stays_clean(server):
    def caller(process):
        kept, left = send_request(server, "kept"), send_request(server, "left")
        return wait_response(kept), len(process.inbox.mailbox), left.request

    assert as_process(caller) == ("kept", 0, "left")


def test_the_server_knows_who_asks(server):
    def caller(process):
        text = wait_response(send_request(server, lambda _, from_: Reply(repr(from_))))
        return text == f"<From {process.pid!r}>"

    assert as_process(caller)


@pytest.mark.parametrize("wait", WAITS)
def test_a_reply_is_taken_once(server, wait):
    asked = send_request(server, "hello")
    wait(asked)
    for again in WAITS:
        with pytest.raises(ConfigError, match=r"has had its reply, or was abandoned; send_request sends another"):
            again(asked)
    assert "RequestId of 'hello' to <Pid" in repr(asked)


def test_of_two_that_wait_without_parking_first_one_is_told_that_it_is_gone(server):
    asked = send_request(server, "hello")
    asked.abandon()
    with pytest.raises(ConfigError):
        asked.wait(1)


def test_a_request_that_was_received_in_vain_is_abandoned(server, log, go):
    """GS receive_response: a late reply is dropped; the server does the work."""
    asked = send_request(server, lambda *_: go.wait() and Reply("late"))
    with pytest.raises(CallTimeout):
        receive_response(asked, 2 * MS)
    assert server.process.monitors == {}
    go.set()
    assert server.call("next") == "next"
    with pytest.raises(ConfigError, match="abandoned"):
        wait_response(asked)


def test_a_caller_that_is_interrupted_abandons_what_it_would_receive_and_not_what_it_waits_for(server):
    for wait, monitors in ((wait_response, 1), (receive_response, 0)):
        asked = send_request(server, never)
        with gevent.Timeout(2 * MS, False):
            wait(asked)
        assert len(server.process.monitors) == monitors


def test_a_request_that_is_dropped_leaves_no_monitor_and_is_executed_all_the_same(server, log):
    server.call("before")
    for _ in range(3):
        send_request(server, lambda probe, _: log.append("executed") or NoReply())
    assert server.process.monitors == {}
    server.call("after")
    assert log == [("call", "before"), *3 * ["executed"], ("call", "after")]


def test_a_request_ends_with_its_owner(server):
    def owner(_):
        asked = send_request(server, never)
        assert len(server.process.monitors) == 1
        raise Exit(asked)

    ended(spawn(owner))
    settle()
    assert server.process.monitors == {}


def test_a_request_that_is_dropped_in_another_thread_leaves_no_monitor(server):
    Native(lambda: send_request(server, never) and None).result()
    settle()
    assert server.process.monitors == {}


def test_a_request_to_a_client_that_is_dropped_is_made_all_the_same():
    asked = Event()
    send_request(Handle(lambda _: asked.set()), "hello")
    assert asked.wait(PATIENCE)


def test_an_answered_request_leaves_no_monitor_though_nobody_waits_for_it(server):
    left = [send_request(server, n) for n in range(3)]
    server.call("last")
    assert server.process.monitors == {}
    assert wait_response(left[2]) == 2


@pytest.mark.parametrize("wait", WAITS)
def test_only_a_request_id_can_be_waited_for(wait):
    with pytest.raises(TypeError, match="takes what send_request returned, not 7"):
        wait(7)


@pytest.mark.parametrize("target", [7, b"probe", ""])
def test_what_is_no_target_is_an_argument_error(target):
    with pytest.raises(TypeError):
        send_request(target, "hello")


@pytest.mark.parametrize("wait", WAITS)
def test_a_bad_timeout_is_an_argument_error(server, wait):
    with pytest.raises(ConfigError, match="timeout is a number of at least 0"):
        wait(send_request(server, "hello"), -1)


def test_a_process_that_takes_no_calls_is_told_when_one_waits():
    process = spawn(idle)
    with pytest.raises(NoProc, match="it is not a gen_server"):
        wait_response(send_request(process.pid, "hello"))
    process.die("enough")


def test_a_wait_that_nothing_can_end_says_so():
    """Rules 17."""

    def only_this():
        pid = Probe.start()
        asked = send_request(pid, never)
        with pytest.raises(CallExit, match="will never answer") as caught:
            wait_response(asked, None)
        return caught.value.reason, caught.value.request is never

    assert Native(only_this).result() == ("deadlock", True)


# What takes calls another way: a client.


class Handle:
    """A client, which parks to send."""

    def __init__(self, answer):
        self.answer = answer
        self.killed = Event()

    def call(self, request, timeout):
        try:
            return self.answer(request)
        finally:
            self.killed.set()

    def cast(self, request):
        """Is not used."""


def test_a_client_is_called_in_a_greenlet_of_its_own(go):
    asked = send_request(Handle(lambda request: go.wait() and request), "hello")
    with pytest.raises(CallTimeout):
        wait_response(asked, 2 * MS)
    go.set()
    assert wait_response(asked) == "hello"


@pytest.mark.parametrize("error", [ErrorReply("no"), CallTimeout("late"), KeyError("a bug")], ids=repr)
def test_what_the_call_of_a_client_raises_is_raised_where_one_waits(error):
    with pytest.raises(type(error)):
        wait_response(send_request(Handle(lambda _: raise_(error)), "hello"))


def test_an_abandoned_request_to_a_client_is_given_up(go):
    client = Handle(lambda _: go.wait())
    with pytest.raises(CallTimeout):
        receive_response(send_request(client, "hello"), 2 * MS)
    assert client.killed.wait(PATIENCE)


def test_the_process_of_a_client_takes_the_same_way(server):
    server.process.gateway = Handle(lambda request: (request, "remote"))
    assert wait_response(send_request(server, "hello")) == ("hello", "remote")


# Other native threads.


def test_any_thread_may_send_and_wait(server):
    def elsewhere():
        asked = send_request(server, "hello")
        slow = send_request(server, never)
        with pytest.raises(CallTimeout):
            receive_response(slow, 2 * MS)
        return wait_response(asked)

    assert Native(elsewhere).result() == "hello"
    settle()
    assert server.process.monitors == {}


def test_a_request_is_waited_for_in_another_thread_than_it_was_sent(server):
    asked = send_request(server, "hello")
    assert Native(wait_response, asked).result() == "hello"


# Memory.


@pytest.mark.parametrize("how", ["reply", "refusal", "crash", "client", "abandoned"])
def test_an_answered_request_is_freed_without_the_collector(server, how):
    class Request:
        """Something that can be referred to weakly."""

    acts = {
        "reply": lambda *_: Reply(1),
        "refusal": refuse,
        "crash": lambda *_: Stop("why"),
        "abandoned": never,
    }

    def ask():
        request = Request()
        request.__class__.__call__ = lambda self, *args: acts[how](*args)
        target = Handle(lambda _: raise_(CallTimeout("late"))) if how == "client" else server
        with pytest.raises((CallExit, ErrorReply)) if how != "reply" else gevent.Timeout(PATIENCE):
            receive_response(send_request(target, request), 2 * MS if how == "abandoned" else PATIENCE)
        return weakref.ref(request)

    gc.collect()
    gc.disable()
    try:
        ref = ask()
        settle()
        assert ref() is None, gc.get_referrers(ref())
    finally:
        gc.enable()
