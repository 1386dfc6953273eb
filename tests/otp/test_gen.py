"""call, cast and stop: cases B and part of C and E of the suites, and calls from everywhere."""

from __future__ import annotations

import gc
import subprocess
import weakref
from collections import deque
from time import monotonic

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, Phonebook, Probe, as_process, ended, settle
from support import MS, run_python

from erps_gevent.errors import (
    BadReturn,
    CallExit,
    CallingSelf,
    CallTimeout,
    ConfigError,
    ErrorReply,
    Exit,
    NoProc,
    ServerExit,
)
from erps_gevent.otp.gen import call, cast, exit_error, stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import NoReply, Reply, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.primitives import exit_
from erps_gevent.otp.process import whereis
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN


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


def never(_server, _from):
    return NoReply()


# B. call


def test_call_reply(server):
    """Case 23, GS call."""
    assert server.call("hello") == "hello"
    assert call("probe", ("a", 1)) == ("a", 1)
    assert call(server, None) is None


def test_call_delayed_reply(server):
    """Case 24, GS call `{delayed_answer,1}`."""

    def later(_server, from_):
        gevent.spawn(from_.reply, "late")
        return NoReply()

    assert server.call(later) == "late"


def test_call_timeout(server):
    """Case 26, GS call; EG "call/3 exit messages"."""
    with pytest.raises(CallTimeout) as caught:
        server.call(never, timeout=2 * MS)
    error = caught.value
    assert (error.reason, error.request, error.sent) == ("timeout", never, True)
    assert repr(server) in str(error)
    assert "0.002 s" in str(error)


def test_call_late_reply_dropped(server, log):
    """Case 27, PR B01: the server did the work, and nothing arrives."""
    go, froms = Event(), []

    def slow(_server, from_):
        go.wait()
        froms.append(from_)
        return Reply("late")

    def caller(process):
        with pytest.raises(CallTimeout):
            server.call(slow, timeout=2 * MS)
        go.set()
        return server.call("next"), len(process.inbox.mailbox)

    assert as_process(caller) == ("next", 0)
    assert froms[0].done
    assert log == [("call", "next")]


@pytest.mark.parametrize("target", ["dead", "no such name", None])
@pytest.mark.parametrize("timeout", [5.0, 0, None])
def test_call_noproc(target, timeout, dead):
    """Case 28, EG "call/3 exit messages"."""
    with pytest.raises(NoProc) as caught:
        call(dead if target == "dead" else target, "hello", timeout)
    assert caught.value.reason is NOPROC
    assert caught.value.request == "hello"
    assert caught.value.sent is False


@pytest.mark.parametrize("target", [7, b"probe", "", ("probe",), object()])
def test_what_is_no_target_is_an_argument_error(target):
    for act in (call, cast):
        with pytest.raises(TypeError, match="take a pid, a name or a client, not "):
            act(target, "hello")
    with pytest.raises(TypeError):
        stop(target)


def test_call_self(server):
    """Case 29, GS calling_self; EG "call/3 exit messages": by pid, by name, by via, with infinite timeout."""
    book = Phonebook()
    book.register_name("key", server, None)

    def call_itself(self, _from):
        for target in (self.pid, "probe", Via(book, "key")):
            with pytest.raises(CallingSelf) as caught:
                call(target, "hello", timeout=None)
            assert caught.value.reason == "calling_self"
        return Reply("refused")

    assert server.call(call_itself) == "refused"


def raise_(error):
    raise error


BOOM, LATE, LEAVING = KeyError("boom"), gevent.Timeout(), SystemExit(3)


@pytest.mark.parametrize(
    ("handler", "reason", "kind"),
    [
        (lambda *_: Stop(NORMAL), NORMAL, "normal"),
        (lambda *_: Stop(SHUTDOWN), SHUTDOWN, "shutdown"),
        (lambda *_: Stop(Shutdown("x")), Shutdown("x"), "shutdown"),
        (lambda *_: Stop(("custom", 1)), ("custom", 1), "exit"),
        (lambda *_: raise_(Exit("custom")), "custom", "exit"),
        (lambda *_: raise_(BOOM), BOOM, "KeyError"),
        (lambda *_: raise_(LATE), LATE, "Timeout"),
        (lambda *_: raise_(LEAVING), LEAVING, "SystemExit"),
        (lambda self, _: exit_(self.pid, KILL), KILLED, "killed"),
        (lambda self, _: exit_(self.pid, "signal"), "signal", "exit"),
    ],
)
def test_call_server_dies_reasons(handler, reason, kind):
    """Case 30, PR B03; GS crash: also for the calls that are queued (rules 1.4)."""
    server, queued, go = Probe.start(), [], Event()

    def handle(self, from_):
        go.wait()
        return handler(self, from_)

    def wait_in_the_queue():
        with pytest.raises(ServerExit) as caught:
            server.call("queued")
        queued.append(caught.value.reason)

    def wait_for_the_handler():
        with pytest.raises(ServerExit) as caught:
            server.call(handle)
        return caught.value

    first = gevent.spawn(wait_for_the_handler)
    gevent.sleep(0)
    second = gevent.spawn(wait_in_the_queue)
    gevent.sleep(0)
    go.set()
    error = first.get()
    second.get()
    assert error.reason == reason
    assert queued == [reason]
    assert error.kind == kind
    assert error.request is handle
    assert error.sent is True
    assert error.__cause__ is (reason if isinstance(reason, BaseException) else None)


def test_call_bad_return(server):
    """Case 32, GS call badreturn."""
    with pytest.raises(BadReturn, match="4711") as caught:
        server.call(lambda *_: 4711)
    assert isinstance(caught.value.reason, BadReturn)
    assert caught.value.reason.reason == 4711
    assert ended(server) is NOPROC


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("x")])
def test_call_exit_shutdown_quiet(server, reason, caplog):
    """Case 33, GS crash (first four)."""
    with pytest.raises(ServerExit):
        server.call(lambda *_: Stop(reason))
    assert caplog.records == []


def test_call_unhandled(caplog):
    """Case 35, GS undef_handle_call; PR B07."""
    with pytest.raises(ServerExit, match="GenServer has no handle_call, and was called with 'hello'") as caught:
        GenServer.start().call("hello")
    assert caught.value.kind == "NotImplementedError"


BAD_TIMEOUTS = [-1, "5", True, float("nan"), float("inf")]


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
def test_a_bad_timeout_is_an_argument_error_and_nothing_is_sent(server, timeout, log):
    """Case 36, PR B06."""
    with pytest.raises(ConfigError, match="timeout is a number of at least 0 or None for ever"):
        server.call("hello", timeout)
    assert server.call("next") == "next"
    assert log == [("call", "next")]


def test_call_zero_and_infinite_timeout(server, log):
    """Case 36, PR B06: 0 times out at once, and the server executes it all the same."""
    with pytest.raises(CallTimeout):
        server.call("zero", timeout=0)
    assert server.call("ever", timeout=None) == "ever"
    assert log == [("call", "zero"), ("call", "ever")]


def counted(name):
    """A method of deque that counts that it was used."""

    def method(self, *args):
        self.looks += 1
        return getattr(deque, name)(self, *args)

    return method


class Counted(deque):
    """A mailbox that counts what is done with it."""

    looks = 0
    __iter__, __getitem__, __contains__ = counted("__iter__"), counted("__getitem__"), counted("__contains__")
    append, popleft, remove, index = counted("append"), counted("popleft"), counted("remove"), counted("index")


def test_call_huge_mailbox(server):
    """Case 37, GS call_with_huge_message_queue: 500,000 queued messages do not slow a call: nobody looks at them."""

    def caller(process):
        mailbox = process.inbox.mailbox = Counted(range(500_000))
        answers = [server.call(n) for n in range(10)]
        return answers, mailbox.looks, len(mailbox), process.inbox.next(), mailbox.looks

    assert as_process(caller) == (list(range(10)), 0, 500_000, 0, 1)


def test_call_from_main_and_plain_greenlet(server):
    """Case 38."""
    assert server.call(1) == 1
    assert gevent.spawn(server.call, 2).get() == 2


def test_reply_from_other_process(server):
    """Case 39, PR B43: a second reply is ignored, the mailbox clean."""

    def hand_on(_server, from_):
        def answer_twice():
            from_.reply("first")
            from_.reply("second")

        gevent.spawn(answer_twice)
        return NoReply()

    def caller(process):
        return server.call(hand_on), server.call("next"), len(process.inbox.mailbox)

    assert as_process(caller) == ("first", "next", 0)


def test_the_replier_may_be_another_native_thread(server):
    threads = []

    def hand_on(_server, from_):
        threads.append(Native(from_.reply, "from afar"))
        return NoReply()

    assert server.call(hand_on) == "from afar"
    threads[0].result()


def test_an_error_reply_is_an_answer(server):
    def refuse(_server, _from):
        raise ErrorReply("not_found", "no such sku", 7)

    with pytest.raises(ErrorReply, match="not_found: no such sku") as caught:
        server.call(refuse)
    assert caught.value.data == 7
    assert server.is_alive()


def test_two_processes_that_call_each_other_time_out(server):
    """Rules 1.5: only a direct call of oneself is detected."""
    other = Probe.start()

    def back(_self, _from):
        return Reply(server.call("hello", timeout=2 * MS))

    with pytest.raises(ServerExit) as caught:
        server.call(lambda *_: Reply(other.call(back)), timeout=PATIENCE)
    assert caught.value.kind == "ServerExit"


@pytest.mark.parametrize("how", ["timeout", "gevent.Timeout", "kill", "reply"])
def test_a_caller_that_stops_waiting_leaves_no_monitor_behind(server, how):
    def wait():
        if how == "timeout":
            with pytest.raises(CallTimeout):
                server.call(never, timeout=2 * MS)
        elif how == "gevent.Timeout":
            with gevent.Timeout(2 * MS, False):
                server.call(never)
        elif how == "reply":
            server.call("hello")
        else:
            server.call(never, timeout=None)

    caller = gevent.spawn(wait)
    if how == "kill":
        gevent.sleep(0)
        gevent.sleep(0)
        assert len(server.process.monitors) == 1
        caller.kill()
    caller.get()
    assert server.process.monitors == {}


def test_messages_of_one_sender_arrive_in_order(server, log):
    """Rules 1.7: send, cast and call mixed."""
    server.send("1")
    server.cast("2")
    server.call("3")
    server.send(None)
    server.call("4")
    assert [what for _, what in log] == ["1", "2", "3", None, "4"]


class Endless(Probe):
    def terminate(self, reason):
        Event().wait()


@pytest.mark.parametrize("act", [lambda pid: pid.call(never, None), stop])
def test_a_dead_end_is_an_error_in_the_main_greenlet_of_any_thread(act):
    """Rules 17."""

    def only_this():
        pid = Endless.start()
        with pytest.raises(CallExit, match="will never answer") as caught:
            act(pid)
        return type(caught.value), caught.value.reason, pid.process.monitors

    assert Native(only_this).result() == (CallExit, "deadlock", {})


def test_a_dead_end_is_an_error_that_says_so():
    """Rules 17: the main greenlet waits and nothing is left that could wake it. In a program of its own."""
    program = (
        "import erps_gevent as erps\n"
        "class Shop(erps.GenServer):\n"
        "    def init(self, stuck=False):\n"
        "        stuck and Other.call('x', None)\n"
        "    def handle_call(self, request, from_):\n"
        "        return erps.NoReply()\n"
        "    def terminate(self, reason):\n"
        "        Other.call('x', None)\n"
        "Other = Shop.start()\n"
        "shop = Shop.start()\n"
        "for act in (lambda: shop.call('x', None), lambda: erps.stop(shop), lambda: Shop.start(True)):\n"
        "    try:\n"
        "        act()\n"
        "    except erps.ErpsError as error:\n"
        "        print(type(error).__name__, error.reason, error)\n"
    )
    done: subprocess.CompletedProcess[str] = run_python("-c", program)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["CallExit", "deadlock"]] * 2 + [["StartError", "deadlock"]], done
    assert "will never answer: this thread has no greenlet, timer or socket left" in lines[0]
    assert done.returncode == 0, done.stderr


# C. cast


def test_cast_handled(server, log):
    """Case 42, GS cast."""
    cast("probe", 1)
    server.cast(2)
    server.call("then")
    assert log[:2] == [("cast", 1), ("cast", 2)]


@pytest.mark.parametrize("target", ["dead", "no such name", None, Via("no such registry", "key")])
def test_cast_never_fails(target, dead):
    """Case 45, EG "start_link/2, call/2 and cast/2": dead pid, unknown name, unknown via."""
    assert cast(dead if target == "dead" else target, "hello") is None


def test_cast_returns_immediately(server, log):
    """Case 47, GS cast_fast."""
    cast(server, "hello")
    assert log == []


# E. stop


def test_stop_normal(server, log):
    """Case 61, GS stop1."""
    assert stop(server) is None
    assert not server.is_alive()
    assert log == [("terminate", NORMAL)]
    with pytest.raises(NoProc) as caught:
        stop(server)
    assert caught.value.reason is NOPROC


@pytest.mark.parametrize("reason", [SHUTDOWN, "other", Shutdown(1)])
def test_stop_reason(server, reason):
    """Case 62, GS stop2."""
    seen = []
    server.process.monitor(seen.append)
    stop(server, reason)
    assert seen == [reason]


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
def test_stop_bad_timeout(server, timeout):
    """Case 63, GS stop3: argument error, server alive."""
    with pytest.raises(ConfigError, match="timeout is a number of at least 0 or None for ever"):
        stop(server, timeout=timeout)
    assert server.call("lives") == "lives"


@pytest.mark.parametrize("name", ["by name", Via(Phonebook(), "key")], ids=["name", "via"])
def test_stop_by_name_and_via(name):
    """Case 64, GS stop4, stop7: the name is gone afterwards."""
    Probe.start(name=name)
    stop(name)
    assert whereis(name) is None
    for target in (name, None):
        with pytest.raises(NoProc):
            stop(target)


def test_stop_self(server):
    """Case 65, EG "stop/3"."""

    def stop_itself(self, _from):
        with pytest.raises(CallingSelf, match=r"return Stop\(reason\)"):
            stop(self.pid)
        return Reply("lives")

    assert server.call(stop_itself) == "lives"


class Slow(Probe):
    def terminate(self, reason):
        self.log.wait()


def test_stop_timeout():
    """Case 66, PR B37: still alive, finishing its terminate."""
    go = Event()
    server = Slow.start(go)
    with pytest.raises(CallTimeout, match=r"did not stop in 0\.002 s") as caught:
        stop(server, timeout=2 * MS)
    assert caught.value.reason == "timeout"
    assert server.is_alive()
    go.set()
    assert ended(server) is NORMAL


class Contrary(Probe):
    def terminate(self, reason):
        raise Exit("contrary")


def test_stop_other_reason():
    """Case 67, PR B37."""
    with pytest.raises(ServerExit, match="did not end with shutdown: 'contrary'") as caught:
        stop(Contrary.start(), SHUTDOWN)
    assert caught.value.reason == "contrary"


def test_stop_takes_the_handle_of_a_process_and_one_that_has_none_is_noproc(server):
    class Handle:
        pid = server

        def call(self):
            """A client has these."""

        cast = call

    stop(Handle())
    assert not server.is_alive()
    Handle.pid = None
    with pytest.raises(NoProc, match="has no process yet"):
        stop(Handle())


# From other native threads.


def test_call_cast_and_stop_from_another_native_thread(server, log):
    """Rules 17: through the bridge."""

    def elsewhere():
        cast("probe", 1)
        got = call(server, 2)
        stop(server)
        return got, server.is_alive()

    assert Native(elsewhere).result() == (2, False)
    assert log == [("cast", 1), ("call", 2), ("terminate", NORMAL)]


def test_errors_cross_threads_with_their_facts(server):
    with pytest.raises(CallTimeout) as caught:
        Native(server.call, never, 2 * MS).result()
    assert caught.value.request is never
    with pytest.raises(ServerExit) as caught:
        Native(server.call, lambda *_: Stop("why")).result()
    assert caught.value.reason == "why"


def test_a_thread_that_is_interrupted_while_it_calls_leaves_no_monitor(server):
    def interrupted():
        with pytest.raises(gevent.Timeout), gevent.Timeout(5 * MS):
            server.call(never, timeout=None)

    Native(interrupted).result()
    gevent.sleep(0)
    gevent.sleep(0)
    assert server.process.monitors == {}


def test_the_process_of_a_thread_that_has_ended_is_noproc():
    def live():
        return Probe.start()

    pid = Native(live).result()
    while not pid.process.hub.dead:
        gevent.sleep(MS)
    with pytest.raises(NoProc, match="has ended") as caught:
        pid.call("hello", timeout=None)
    assert caught.value.request == "hello"
    pid.cast("hello")
    pid.send("hello")
    with pytest.raises(NoProc):
        stop(pid)


def test_a_blocked_hub_does_not_outlast_the_timeout_of_a_caller_elsewhere(server):
    took = []

    def caller():
        begun = monotonic()
        try:
            server.call("hello", timeout=5 * MS)
        except CallTimeout:
            took.append(monotonic() - begun)

    thread = Native(caller)
    deadline = monotonic() + PATIENCE
    while not took and monotonic() < deadline:
        pass  # The hub of this thread, which the server lives in, is not turned.
    thread.result()
    assert 5 * MS <= took[0] < PATIENCE


# Memory.


def test_an_answered_or_failed_call_is_freed_without_the_collector(server, log):
    class Request:
        """Something that can be referred to weakly."""

    refs = []

    def ask(act):
        request = Request()
        request.act = act
        refs.append(weakref.ref(request))
        try:
            server.call(lambda self, from_, request=request: request.act(self, from_), timeout=2 * MS)
        except CallExit:
            log.clear()

    gc.collect()
    gc.disable()
    try:
        ask(lambda *_: Reply(1))
        ask(never)
        ask(lambda *_: {}["crash"])
        settle()
        assert [ref() for ref in refs] == [None, None, None]
    finally:
        gc.enable()


def test_noproc_as_a_reason_is_noproc_to_the_caller():
    assert type(exit_error(NOPROC, 1)) is NoProc
