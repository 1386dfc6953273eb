"""The generic loop: what init, the callbacks and terminate may answer, and what becomes of the process."""

from __future__ import annotations

import contextlib
import logging
from time import monotonic

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Log, Native, Phonebook, Probe, as_process, ended, idle, settle, spawn
from support import MS

from erps_gevent.errors import (
    AlreadyStarted,
    BadReturn,
    ConfigError,
    EncodeError,
    ErrorReply,
    Exit,
    NoProc,
    ServerExit,
    StartError,
    StartIgnored,
)
from erps_gevent.otp import loop, sys, thrower
from erps_gevent.otp.gen import stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.inbox import TURN_EVENTS, TURN_SECONDS
from erps_gevent.otp.messages import Call, Continue, From, IdleTimeout, Ignore, NoReply, Ok, Reply, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.primitives import exit_, info
from erps_gevent.otp.process import ExitSignal, whereis
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.words import HIBERNATE, KILL, KILLED, NORMAL, SHUTDOWN, TIMEOUT

BOOM = KeyError("boom")


def raise_(error):
    raise error


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def begin(log):
    """Start a Probe whose init does what it is told."""
    started = []

    def start(how=None, **options):
        pid = Probe.start(log, how, **options)
        started.append(pid)
        return pid

    yield start
    for pid in started:
        exit_(pid, KILL)
        ended(pid)


@pytest.fixture
def server(begin):
    return begin()


# A. start and init


@pytest.mark.parametrize("given", [None, Ok()])
def test_start_anonymous(begin, given):
    """Case 1, GS start: a live pid that answers calls; after stop, call exits noproc."""
    pid = begin(lambda _: given)
    assert pid.is_alive()
    assert pid.call("hello") == "hello"
    stop(pid)
    with pytest.raises(NoProc):
        pid.call("hello")


FAILURES = {
    "ignore": (lambda _: Ignore(), StartIgnored, None),
    "stop": (lambda _: Stop("stopped"), StartError, "stopped"),
    "stop normal": (lambda _: Stop(NORMAL), StartError, NORMAL),
    "raise": (lambda _: raise_(BOOM), StartError, BOOM),
    "sys.exit": (lambda _: raise_(SystemExit(3)), StartError, SystemExit),
    "error reply": (lambda _: raise_(ErrorReply("no")), StartError, ErrorReply),
    "exit": (lambda _: raise_(Exit("bailout")), StartError, "bailout"),
    "killed": (lambda _: raise_(gevent.GreenletExit()), StartError, KILLED),
    "bad return": (lambda _: 4711, StartError, BadReturn),
    "bad then": (lambda _: Ok(4711), StartError, BadReturn),
}


def fails_to_start(how):
    """Start in each way five times in a row: nothing is left, and no start_link kills its caller.

    That would be double punishment (rules 5). Return the last error.
    """
    init, kind, reason = FAILURES[how]
    log = []

    def starter(process):
        for start in (Probe.start, Probe.start_link):
            for _ in range(5):
                with pytest.raises(kind) as caught:
                    start(log, init, name="failing")
                assert whereis("failing") is None
                assert process.links == {}
        gevent.sleep(0)
        return caught.value, list(process.inbox.mailbox)

    for trap in (True, False):
        error, mailbox = as_process(starter, trap=trap)
        assert mailbox == []
        assert log == []
        if kind is StartError:
            assert error.reason is reason or isinstance(error.reason, reason)
            assert error.__cause__ is (error.reason if isinstance(error.reason, BaseException) else None)
            assert "Probe did not start: " in str(error)
    return error


def test_init_ignore():
    """Case 5, GS start, loop_start_fail: ignore reported, no process, no message to a trapping caller."""
    fails_to_start("ignore")


@pytest.mark.parametrize("how", ["stop", "stop normal"])
def test_init_stop(how):
    """Case 6, GS start, loop_start_fail: five times in a row."""
    fails_to_start(how)


@pytest.mark.parametrize("how", FAILURES)
def test_init_error_quiet(how, caplog):
    """Case 7, GS start `{error, foobar}`: the starter is told, so there is no crash report, whatever init did."""
    fails_to_start(how)
    assert caplog.records == []


def test_init_raises():
    """Case 8, GS loop_start_fail crash error: StartError carries the exception and its traceback."""
    trace = fails_to_start("raise").__cause__.__traceback__
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "raise_"


def test_init_exits():
    """Case 9, GS loop_start_fail crash exit."""
    assert fails_to_start("exit").reason == "bailout"


def test_init_bad_return():
    """Case 10, GS loop_start_fail return 4711."""
    error = fails_to_start("bad return")
    assert "init returned 4711; it may return None, Ok, Ignore or Stop" in str(error)
    assert error.reason.reason == 4711


def test_init_missing():
    """Case 11, GS undef_init: a GenServer without init takes no arguments, and that is said at once."""

    def starter(process):
        with pytest.raises(TypeError, match=r"GenServer.init\(\): too many positional arguments"):
            GenServer.start_link(1)
        settle()
        return list(process.inbox.mailbox)

    assert as_process(starter, trap=True) == []
    stop(GenServer.start())


@pytest.mark.parametrize("how", ["ignore", "stop", "raise"])
def test_failed_start_leaves_no_name(how):
    """Case 12, GS otp_7669: the name is free again, 100 times."""
    init, kind, _ = FAILURES[how]
    for _ in range(100):
        with pytest.raises(kind):
            Probe.start(None, init, name="failing")
        assert whereis("failing") is None


@pytest.mark.parametrize("how", [None, *FAILURES])
def test_init_it_order(how, begin):
    """Case 21, CN "init {:ok, state}" to "init throw": the starter hears of each outcome after init has run."""
    if how is None:
        begun = []
        assert begin(lambda self: begun.append(self.pid) or Ok()) == begun[0]
    else:
        fails_to_start(how)


def test_start_timeout(begin, log):
    """Case 4, GS start; PR B15."""
    pids = []

    def slow(self):
        pids.append(self.pid)
        Event().wait()

    with pytest.raises(StartError, match=r"Probe.init took longer than 0.002 s") as caught:
        begin(slow, name="slow", timeout=2 * MS)
    assert caught.value.reason == "timeout"
    assert not pids[0].is_alive()
    assert whereis("slow") is None
    assert log == []


def test_a_start_that_takes_too_long_and_swallows_the_kill_has_no_name_and_dies_later(monkeypatch, begin):
    monkeypatch.setattr(thrower, "RETHROW", 2 * MS)
    monkeypatch.setattr(loop, "KILL_WAIT", 1 * MS)
    pids, go = [], Event()

    def stubborn(self):
        pids.append(self.pid)
        for _ in range(3):
            with contextlib.suppress(BaseException):  # the very thing under test
                go.wait()

    with pytest.raises(StartError):
        begin(stubborn, name="stubborn", timeout=1 * MS)
    assert whereis("stubborn") is None
    ended(pids[0])
    assert not pids[0].is_alive()


def test_init_that_swallows_the_kill_and_returns_is_not_served(monkeypatch):
    pids = []

    def stubborn(self):
        pids.append(self.pid)
        with contextlib.suppress(BaseException):  # the very thing under test
            Event().wait()

    with pytest.raises(StartError):
        Probe.start(None, stubborn, timeout=1 * MS)
    assert not pids[0].is_alive()


@pytest.mark.parametrize("linked", [True, False])
def test_a_starter_that_is_interrupted_takes_what_it_started_with_it(linked, log):
    """It is killed, and the link does not take the starter along."""
    pids = []

    def slow(self):
        pids.append(self.pid)
        Event().wait()

    def starter(process):
        with gevent.Timeout(2 * MS, False):
            (Probe.start_link if linked else Probe.start)(log, slow, name="slow")
        assert whereis("slow") is None
        ended(pids[0])
        gevent.sleep(0)
        return process.links

    assert as_process(starter) == {}
    assert not pids[0].is_alive()


def test_an_init_that_waits_for_nothing_is_a_start_error():
    """Rules 17: in a thread that has nothing else to run."""

    def only_this():
        with pytest.raises(StartError, match="waits for something that will never happen") as caught:
            Probe.start(None, lambda _: Event().wait(), name="stuck")
        return caught.value.reason, whereis("stuck")

    assert Native(only_this).result() == ("deadlock", None)


@pytest.mark.parametrize("name", ["taken", Via(Phonebook(), "taken")], ids=["local", "via"])
def test_already_started(begin, name):
    """Case 13, GS start (local, via): before anything is spawned."""
    ran = []
    first = begin(name=name)
    with pytest.raises(AlreadyStarted, match=r"'taken'.* belongs to") as caught:
        Probe.start(None, ran.append, name=name)
    assert caught.value.pid is first
    gevent.sleep(0)
    assert ran == []
    assert whereis(name) is first


def test_of_many_concurrent_starts_one_gets_the_name(begin):
    """The others are told while its init still runs."""
    go = Event()

    def start():
        try:
            return begin(lambda _: go.wait() and None, name="contended")
        except AlreadyStarted as error:
            return error.pid

    starts = [gevent.spawn(start) for _ in range(10)]
    gevent.sleep(0)
    gevent.sleep(0)
    assert sum(start.ready() for start in starts) == 9
    go.set()
    assert {start.get() for start in starts} == {whereis("contended")}


def test_init_state_ok_timeout(begin, log, clock):
    """Case 17, GS start_event_timeout: once when idle, cancelled by a call."""
    pid = begin(lambda _: Ok(IdleTimeout(60)))
    pid.call("cancels it")
    clock.advance(61, pid)
    assert log == [("call", "cancels it")]
    pid = begin(lambda _: Ok(IdleTimeout(60)))
    clock.advance(59, pid)
    assert log[1:] == []
    clock.advance(1, pid)
    clock.advance(61, pid)
    assert log[1:] == [("info", TIMEOUT)]


@pytest.mark.parametrize("seconds", [0, 2 * TURN_SECONDS])
def test_init_timeout_zero(begin, log, seconds):
    """Case 18, GS start_event_timeout_zero: fires before a message sent later, however long init has computed."""

    def compute(_):
        until = monotonic() + seconds
        while monotonic() < until:
            continue
        return Ok(IdleTimeout(0))

    pid = begin(compute)
    pid.call("later")
    assert log == [("info", TIMEOUT), ("call", "later")]


def test_init_hibernate(begin):
    """Case 19, GS hibernate: reports hibernating, then answers."""
    pid = begin(lambda _: Ok(HIBERNATE))
    assert status(pid) == "hibernating"
    assert pid.call("hello") == "hello"
    assert status(pid) == "waiting"


def status(pid):
    """What the process is at once it has nothing to do."""
    for _ in range(3):
        gevent.sleep(0)
    return info(pid)["status"]


def test_init_continue(begin, log):
    """Case 20, GS continue: before any queued message, and start has returned."""
    pids = []

    def init(self):
        self.pid.send("queued")
        return Ok(Continue(lambda server: pids.append(whereis("it")) or server.log.append("continued")))

    pid = begin(init, name="it")
    pid.call("last")
    assert log == ["continued", ("info", "queued"), ("call", "last")]
    assert pids == [pid]


# B. crash reports


def test_call_crash_logged_once(server, caplog):
    """Case 34, GS crash, error_format_status: last message, state, reason, client."""

    def crash(self, _from):
        self.count, self._hidden = 3, "secret"
        raise BOOM

    def caller(process):
        with pytest.raises(ServerExit):
            server.call(crash)
        return process.pid

    client = as_process(caller)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    text = caplog.text
    assert f"{server!r} terminating\nreason: KeyError('boom')\nlast message: call <function" in text
    assert f"client: <From {client!r}>" in text
    assert "'count': 3" in text
    assert "'_hidden': 'secret'" in text
    assert "_process" not in text
    assert text.rstrip().endswith("KeyError: 'boom'")


def test_a_crash_without_an_exception_is_logged_without_a_traceback(server, caplog):
    server.cast(lambda _: Stop("bad luck"))
    assert ended(server) == "bad luck"
    assert "reason: 'bad luck'" in caplog.text
    assert "client: None" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_crash_on_a_large_message_leaves_a_small_report(server, caplog):
    server.cast(lambda self: setattr(self, "bulk", [b"x" * 1000] * 10_000) or Stop(b"y" * 1_000_000))
    ended(server)
    assert len(caplog.text) < 20_000


# C. cast, info, order


def test_cast_with_timeout(server, log):
    """Case 43, GS cast delayed_cast."""
    server.cast(lambda _: NoReply(IdleTimeout(1 * MS)))
    log.wait_for(("info", TIMEOUT))
    assert log == [("info", TIMEOUT)]


def test_cast_stop(server, log):
    """Case 44, GS cast stop."""
    server.cast(lambda _: Stop(Shutdown("enough")))
    assert ended(server) == Shutdown("enough")
    assert log == [("terminate", Shutdown("enough"))]


def test_cast_unhandled_crashes(caplog):
    """Case 46, GS undef_handle_cast."""
    pid = GenServer.start()
    pid.cast("hello")
    assert isinstance(ended(pid), NotImplementedError)
    assert "GenServer has no handle_cast, and was cast 'hello'" in caplog.text


def test_info_handled(server, log):
    """Case 48, GS info: also delayed, and stop from info."""
    server.send("now")
    gevent.spawn_later(2 * MS, server.send, "later")
    log.wait_for(("info", "later"))
    server.send(lambda _: Stop("enough"))
    assert ended(server) == "enough"
    assert log == [("info", "now"), ("info", "later"), ("terminate", "enough")]


def test_info_unhandled_logged(caplog):
    """Case 49, GS undef_handle_info."""
    pid = GenServer.start()
    pid.send("hello")
    settle()
    assert pid.is_alive()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "has no handle_info; dropped 'hello'" in caplog.text
    stop(pid)


@pytest.mark.parametrize("error", [AttributeError("x"), NotImplementedError("x"), gevent.Timeout(), SystemExit(3)])
def test_info_error_is_a_crash(server, log, error, caplog):
    """Case 50, GS undef_in_handle_info; a gevent.Timeout or sys.exit() in a callback is a crash like any other."""
    server.send(lambda _: raise_(error))
    assert ended(server) is error
    assert log == [("terminate", error)]
    assert len(caplog.records) == 1


def test_ctrl_c_in_a_callback_reaches_the_program(server, log):
    server.send(lambda _: raise_(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Event().wait(PATIENCE)
    assert not server.is_alive()
    assert log == []


def test_queued_dropped_on_stop(server, log):
    """Case 52, PR B47."""
    server.cast(lambda _: Stop(NORMAL))
    server.cast("behind")
    ended(server)
    assert log == [("terminate", NORMAL)]


@pytest.mark.parametrize("how", ["cast", "send"])
def test_an_error_reply_outside_of_a_call_is_a_crash(server, how):
    getattr(server, how)(lambda _: raise_(ErrorReply("no")))
    assert isinstance(ended(server), ErrorReply)


BAD = {
    "a value": lambda *_: 4711,
    "Ok": lambda *_: Ok(),
    "bad then": lambda *_: NoReply(4711),
    "a class": lambda *_: NoReply,
}


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("kind", ["cast", "info", "continue", "call"])
def test_any_other_answer_ends_the_process(server, kind, how):
    """Rules 3.1."""
    seen = []
    server.process.monitor(seen.append)
    tell(server, kind, BAD[how])
    ended(server)
    assert isinstance(seen[0], BadReturn)
    assert f"Probe.handle_{kind} returned " in str(seen[0])


def tell(server, kind, callback):
    if kind == "cast":
        server.cast(callback)
    elif kind == "info":
        server.send(callback)
    elif kind == "continue":
        server.cast(lambda _: NoReply(Continue(callback)))
    else:
        gevent.spawn(lambda: swallow(server, callback))
    gevent.sleep(0)
    gevent.sleep(0)


def swallow(server, callback):
    with pytest.raises(ServerExit):
        server.call(callback)


def test_reply_is_an_answer_to_calls_only_and_none_to_all_but_calls(server):
    server.cast(lambda _: Reply(1))
    assert isinstance(ended(server), BadReturn)
    other = Probe.start()
    with pytest.raises(ServerExit, match="Reply, NoReply or Stop"):
        other.call(lambda *_: None)


def test_a_bad_then_of_a_reply_ends_the_process_after_the_reply(server):
    assert server.call(lambda *_: Reply(1, then=4711)) == 1
    gevent.sleep(0)
    assert not server.is_alive()


# D. continue, timeout, hibernate


def test_continue_after_reply(server, log):
    """Case 53, GS continue: reply first, continue next, then other messages."""

    def handler(self, _from):
        self.pid.send("queued")
        return Reply("reply", then=Continue("next"))

    assert server.call(handler) == "reply"
    server.call("last")
    assert log == [("continue", "next"), ("info", "queued"), ("call", "last")]


CONTINUES = {
    "call reply": lambda server: server.call(lambda *_: Reply(1, Continue("on"))),
    "call noreply": lambda server: server.call(lambda _, from_: from_.reply(1) or NoReply(Continue("on"))),
    "cast": lambda server: server.cast(lambda _: NoReply(Continue("on"))),
    "info": lambda server: server.send(lambda _: NoReply(Continue("on"))),
    "continue": lambda server: server.cast(lambda _: NoReply(Continue(lambda _: NoReply(Continue("on"))))),
}


@pytest.mark.parametrize("callback", CONTINUES)
def test_continue_from_each_callback(server, log, callback):
    """Case 54, GS continue."""
    CONTINUES[callback](server)
    server.call("last")
    assert log == [("continue", "on"), ("call", "last")]


def test_continue_then_stop(server):
    """Case 54, GS continue."""
    server.cast(lambda _: NoReply(Continue(lambda _: Stop("enough"))))
    assert ended(server) == "enough"


def test_continue_missing(caplog):
    """Case 55, GS undef_handle_continue."""

    class Bare(GenServer):
        def init(self):
            return Ok(Continue("on"))

    pid = Bare.start()
    ended(pid)
    assert "Bare has no handle_continue for 'on'" in caplog.text


def test_a_chain_of_continues_lets_the_others_run(server):
    """The BEAM preempts."""
    count = []

    def again(_):
        count.append(1)
        return NoReply(Continue(again))

    server.cast(again)
    for _ in range(3):
        gevent.sleep(0)
    assert 0 < len(count) <= 4 * TURN_EVENTS


@pytest.mark.parametrize("cancel", ["call", "cast", "send"])
def test_timeout_cancelled_by_any_message(server, log, cancel, clock):
    """Case 56, GS handle_event_timeout_plain; it is not armed again (rules 4.1)."""
    server.call(lambda *_: Reply(1, IdleTimeout(60)))
    getattr(server, cancel)("cancels it")
    settle()
    clock.advance(61, server)
    assert ("info", TIMEOUT) not in log
    assert len(log) == 1


def test_a_message_that_is_none_is_no_timeout(server, log):
    server.call(lambda *_: Reply(1, IdleTimeout(PATIENCE)))
    server.send(None)
    server.call("last")
    assert log == [("info", None), ("call", "last")]


TIMEOUTS = {
    "call": lambda server, then: server.call(lambda *_: Reply(1, then)),
    "cast": lambda server, then: server.cast(lambda _: NoReply(then)),
    "info": lambda server, then: server.send(lambda _: NoReply(then)),
    "continue": lambda server, then: server.cast(lambda _: NoReply(Continue(lambda _: NoReply(then)))),
}


@pytest.mark.parametrize("callback", TIMEOUTS)
def test_timeout_from_each_callback(server, log, callback, clock):
    """Case 58, GS handle_event_timeout: once only."""
    TIMEOUTS[callback](server, IdleTimeout(60))
    settle()
    clock.advance(60, server)
    clock.advance(61, server)
    assert log == [("info", TIMEOUT)]


def test_timeout_zero_yields_to_queue(server, log):
    """Case 59, GS handle_event_timeout_zero; PR B12."""
    server.cast(lambda _: NoReply(IdleTimeout(0)))
    server.cast("queued")
    server.call("last")
    assert log == [("cast", "queued"), ("call", "last")]


@pytest.mark.parametrize("callback", TIMEOUTS)
def test_hibernate_each_callback(server, callback):
    """Case 60, GS hibernate: wakes on a call."""
    TIMEOUTS[callback](server, HIBERNATE)
    assert status(server) == "hibernating"
    assert server.call("wakes") == "wakes"
    assert status(server) == "waiting"


HIBERNATES = {
    "init": lambda server: None,
    "call": lambda server: server.call("hello"),
    "cast": lambda server: server.cast("hello"),
    "info": lambda server: server.send("hello"),
}


@pytest.mark.parametrize("callback", HIBERNATES)
def test_hibernate_after(begin, callback):
    """Optional, GS auto_hibernate: idle N after init, call, cast, info; get_state answers and wakes nobody."""
    pid = begin(hibernate_after=1 * MS)
    HIBERNATES[callback](pid)
    with gevent.Timeout(PATIENCE):
        while info(pid)["status"] != "hibernating":
            gevent.sleep(MS)
    assert sys.get_state(pid).keys() == {"log"}
    assert status(pid) == "hibernating"
    assert pid.call("wakes") == "wakes"


def test_hibernate_after_is_for_a_server_that_is_idle(begin, log):
    pid = begin(hibernate_after=PATIENCE)
    pid.send("hello")
    assert status(pid) == "waiting"
    assert log == [("info", "hello")]
    sys.get_state(pid)
    assert status(pid) == "waiting"
    assert pid.call("wakes") == "wakes"


def test_an_idle_timeout_goes_before_hibernate_after(begin, log):
    begin(lambda _: Ok(IdleTimeout(2 * MS)), hibernate_after=1 * MS)
    log.wait_for(("info", TIMEOUT))


@pytest.mark.parametrize("seconds", [-1, "5"])
def test_a_bad_hibernate_after_is_named(seconds):
    with pytest.raises(ConfigError, match=r"Probe.start: hibernate_after is a number of at least 0"):
        Probe.start(hibernate_after=seconds)


# What sys asks is answered between the events.


def test_a_suspended_process_takes_only_what_ends_it_and_what_sys_asks(server, log, clock):
    server.call(lambda *_: Reply(1, IdleTimeout(60)))
    sys.suspend(server)
    server.send("waits")
    server.send(ExitSignal(None, "a stranger's"))
    clock.advance(61, server)
    assert sys.get_state(server)["log"] is log
    assert log == []
    sys.resume(server)
    assert server.call("last") == "last"
    assert log == [("info", "waits"), ("info", ExitSignal(None, "a stranger's")), ("call", "last")]


def test_a_server_that_is_watched_behaves_as_before(server, log):
    sys.statistics(server, True)
    assert server.call("hello") == "hello"
    with pytest.raises(ErrorReply):
        server.call(lambda *_: raise_(ErrorReply("no")))
    server.cast(lambda _: raise_(BOOM))
    assert ended(server) is BOOM


# E. terminate


REASONS = {
    "stop": (lambda *_: Stop("why"), "why"),
    "stop normal": (lambda *_: Stop(NORMAL), NORMAL),
    "raise": (lambda *_: raise_(BOOM), BOOM),
    "exit": (lambda *_: raise_(Exit("why")), "why"),
    "bad return": (lambda *_: 4711, BadReturn),
}


@pytest.mark.parametrize("kind", ["cast", "info", "continue", "call"])
@pytest.mark.parametrize("how", REASONS)
def test_terminate_reasons(server, log, kind, how):
    """Case 68, PR B03, B36: called with the exit reason."""
    callback, reason = REASONS[how]
    tell(server, kind, callback)
    ended(server)
    assert len(log) == 1
    assert log[0][0] == "terminate"
    assert log[0][1] == reason or isinstance(log[0][1], reason)


@pytest.mark.parametrize("reason", [KILL, "signal", SHUTDOWN])
def test_terminate_not_called(server, log, reason):
    """Case 69, PR B23, B28: kill and untrapped signals skip it; nor does a killed greenlet's."""
    exit_(server, reason)
    ended(server)
    assert log == []


def test_terminate_is_not_called_for_an_exit_that_the_process_sends_to_itself(server, log):
    server.cast(lambda self: exit_(self.pid, "why"))
    assert ended(server) == "why"
    assert log == []


def test_terminate_is_not_called_when_the_greenlet_is_killed(server, log, caplog):
    server.process.greenlet.kill(block=False)
    assert ended(server) is KILLED
    assert log == []
    assert caplog.records == []


class Failing(Probe):
    def terminate(self, reason):
        self.log.append(reason)
        raise self.failure


@pytest.mark.parametrize("failure", [BOOM, SystemExit(3), gevent.Timeout()])
def test_terminate_crash(log, failure, caplog):
    """Case 71, GS terminate_crash_format; PR B35: the exception becomes the reason and is logged."""
    pid = Failing.start(log, lambda self: setattr(self, "failure", failure))
    pid.cast(lambda _: Stop(NORMAL))
    assert ended(pid) is failure
    assert log == [NORMAL]
    assert len(caplog.records) == 1


def test_an_exit_in_terminate_replaces_the_reason(log, caplog):
    pid = Failing.start(log, lambda self: setattr(self, "failure", Exit(SHUTDOWN)))
    pid.cast(lambda _: raise_(BOOM))
    assert ended(pid) is SHUTDOWN
    assert caplog.records == []


def test_a_kill_in_terminate_is_a_kill(log):
    pid = Failing.start(log, lambda self: setattr(self, "failure", gevent.GreenletExit()))
    pid.cast(lambda _: Stop(NORMAL))
    assert ended(pid) is KILLED


def test_a_signal_while_terminate_runs_ends_it(log):
    class Lingering(Probe):
        def terminate(self, reason):
            exit_(self.pid, "signal")

    pid = Lingering.start(log)
    pid.cast(lambda _: Stop(NORMAL))
    assert ended(pid) == "signal"


@pytest.mark.parametrize("reason", [NORMAL, "any"])
def test_terminate_default(reason):
    """Case 72, GS undef_terminate1, undef_terminate2."""
    stop(GenServer.start(), reason)


def test_stop_with_a_reply_terminates_first(server, log):
    """Rules 3.3: terminate, then the reply, then the exit."""

    def handler(_server, from_):
        from_.waiter.hub.loop.run_callback(log.append, "a turn later")
        return Stop(NORMAL, reply="bye")

    assert server.call(handler) == "bye"
    assert log[0] == ("terminate", NORMAL)
    assert not server.is_alive()


def test_a_reply_of_stop_outside_of_a_call_is_for_nobody(server):
    server.cast(lambda _: Stop("why", reply="bye"))
    assert ended(server) == "why"


# Links and the parent.


def test_an_exit_of_the_parent_terminates_a_trapping_child(log):
    """Rules 7 and 9: also for NORMAL; handle_info is not called."""
    for reason in (NORMAL, "why"):
        log.clear()
        children = []

        def parent(_, reason=reason, children=children):
            children.append(Probe.start_link(log, lambda self: setattr(self, "trap_exit", True)))
            raise Exit(reason)

        ended(spawn(parent))
        gevent.sleep(0)
        gevent.sleep(0)
        assert log == [("terminate", reason)]
        assert not children[0].is_alive()


def test_an_exit_of_the_parent_ends_a_child_that_does_not_trap(log):
    children = []

    def parent(_):
        children.append(Probe.start_link(log))
        children[0].process.monitor(log.append)
        raise Exit("why")

    ended(spawn(parent))
    ended(children[0])
    assert log == ["why"]


def test_a_signal_of_anybody_else_is_a_message_to_a_trapping_server(log):
    """Rules 7."""
    pid = Probe.start(log, lambda self: setattr(self, "trap_exit", True))
    other = spawn(idle)
    other.link(pid.process)
    gevent.spawn(exit_, pid, "from a greenlet").join()
    other.die("partner")
    ended(other)
    assert pid.call("lives") == "lives"
    assert log == [
        ("info", ExitSignal(None, "from a greenlet")),
        ("info", ExitSignal(other.pid, "partner")),
        ("call", "lives"),
    ]
    exit_(pid, KILL)


# Replies that cannot be sent, which only a remote caller's can.


class PickyFrom(From):
    """The address of a caller who can be sent strings only."""

    def __init__(self, hub):
        super().__init__(hub, None)
        self.got = []

    def _reply(self, value):
        if not isinstance(value, str):
            raise EncodeError(f"cannot send {value!r}")
        self.got.append(value)

    def _fail(self, error):
        self._reply(error.data)
        self.got.append(error)


@pytest.mark.parametrize(
    "handler",
    [lambda *_: Reply(7), lambda *_: Stop(NORMAL, reply=7), lambda *_: raise_(ErrorReply("no", data=7))],
    ids=["Reply", "Stop", "ErrorReply"],
)
def test_an_answer_that_cannot_be_sent_ends_the_process(server, handler):
    """DESIGN 2: like a bad return. Never silence."""
    from_ = PickyFrom(server.process.hub)
    server.process.send(Call(handler, from_))
    assert isinstance(ended(server), EncodeError)
    assert from_.got == []


def test_an_error_reply_that_can_be_sent_leaves_the_process_alone(server):
    from_ = PickyFrom(server.process.hub)
    server.process.send(Call(lambda *_: raise_(ErrorReply("no", data="text")), from_))
    assert server.call("lives") == "lives"
    assert from_.got[0] == "text"


def test_any_local_value_can_be_a_reply(server):
    marker = object()
    assert server.call(lambda *_: Reply(marker)) is marker


# Reasons that cannot be printed: whoever waits hears of the end all the same.


class Unprintable(Exception):
    def __str__(self):
        return f"code {None:d}"


@pytest.mark.parametrize("reason", [Unprintable(), Shutdown(Unprintable()), (Unprintable(),)], ids=["raised", "a", "b"])
def test_a_start_that_fails_with_what_cannot_be_printed_fails(begin, reason):
    with gevent.Timeout(PATIENCE), pytest.raises(StartError) as caught:
        begin(lambda _: raise_(reason) if isinstance(reason, Exception) else Stop(reason))
    assert caught.value.reason is reason


def test_a_call_of_a_server_that_ends_with_what_cannot_be_printed_fails(server):
    error = Unprintable()
    with gevent.Timeout(PATIENCE), pytest.raises(ServerExit, match="Unprintable, which cannot be printed") as caught:
        server.call(lambda *_: raise_(error), timeout=None)
    assert (caught.value.reason, caught.value.kind) == (error, "Unprintable")


class Parking:
    """A registrar that writes a name down, and then parks."""

    def __init__(self):
        self.held = {}

    def register_name(self, key, pid, value):
        self.held[key] = pid
        Event().wait()

    def whereis_name(self, key):
        return self.held.get(key)

    def unregister_name(self, key):
        del self.held[key]


def test_a_start_that_is_interrupted_while_a_registrar_parks_leaves_no_name():
    registrar = Parking()
    with gevent.Timeout(2 * MS, False):
        GenServer.start(name=Via(registrar, "key"))
    assert registrar.held == {}
