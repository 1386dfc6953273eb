"""What an operator may ask of a running gen_server: whom, from where, and what when there is no answer."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from otp.kernel import Log, Native, Phonebook, Probe, as_process, ended, idle, settle, spawn
from support import MS

from erps_gevent.errors import CallExit, CallingSelf, CallTimeout, ConfigError, NoProc, ServerExit
from erps_gevent.otp import sys
from erps_gevent.otp.gen import stop
from erps_gevent.otp.messages import IdleTimeout, Ok, Reply, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.primitives import exit_, info
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.words import HIBERNATE, KILL, NOPROC, NORMAL, SHUTDOWN, TIMEOUT

ASKS = {
    "get_state": sys.get_state,
    "replace_state": lambda target, *timeout: sys.replace_state(target, dict, *timeout),
    "get_status": sys.get_status,
    "suspend": sys.suspend,
    "resume": sys.resume,
    "statistics": lambda target, *timeout: sys.statistics(target, True, *timeout),
    "log": lambda target, *timeout: sys.log(target, True, *timeout),
    "trace": lambda target, *timeout: sys.trace(target, False, *timeout),
}


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def server(log):
    pid = Probe.start(log, name="probe")
    yield pid
    exit_(pid, KILL)
    ended(pid)


@pytest.fixture
def busy(server):
    """What lets the server's handler go on."""
    go = Event()
    server.cast(lambda _: go.wait() and None)
    return go


class Handle:
    """What a client is: it has a process of its own."""

    def __init__(self, pid):
        self.pid = pid

    def call(self):
        """Would go elsewhere."""

    cast = call


@pytest.mark.parametrize("kind", ["pid", "name", "via", "client"])
def test_get_state(server, log, kind):
    """Case 74, GS get_state: by name and pid, with timeout, while suspended."""
    book = Phonebook()
    book.register_name("probe", server, None)
    target = {"pid": server, "name": "probe", "via": Via(book, "probe"), "client": Handle(server)}[kind]
    server.call(lambda self, _: Reply(setattr(self, "_count", 3)))
    assert sys.get_state(target) == {"log": log, "_count": 3}
    assert sys.get_state(target, timeout=None) == {"log": log, "_count": 3}
    sys.suspend(target)
    assert sys.get_state(target, 5.0)["_count"] == 3
    assert log == []


def test_the_state_is_a_copy(server):
    sys.get_state(server).clear()
    assert sys.get_state(server) != {}


def test_replace_state(server, log):
    """Case 75, GS replace_state: the new state is returned and visible; works suspended."""
    assert sys.replace_state(server, lambda state: {**state, "count": 3}) == {"log": log, "count": 3}
    assert server.call(lambda self, _: Reply(self.count)) == 3
    sys.suspend(server)
    sys.replace_state(server, lambda state: {"log": state["log"], "other": 4})
    assert sys.get_state(server) == {"log": log, "other": 4}
    sys.resume(server)
    assert server.call(lambda self, _: Reply(hasattr(self, "count"))) is False


def test_a_replacement_that_is_no_function_is_refused_at_once(server):
    with pytest.raises(TypeError, match=r"takes a function of the state, not \{'count': 1\}"):
        sys.replace_state(server, {"count": 1})


def test_suspend_resume(server, log):
    """Case 77, PR B39: calls time out while suspended, and are served after resume."""
    sys.suspend(server)
    sys.suspend(server)
    with pytest.raises(CallTimeout):
        server.call("early", timeout=2 * MS)
    server.cast("cast")
    server.send("sent")
    waiting = gevent.spawn(server.call, "patient")
    gevent.sleep(0)
    assert sys.get_status(server)["status"] == "suspended"
    assert log == []
    sys.resume(server)
    assert waiting.get() == "patient"
    sys.resume(server)
    assert log == [("call", "early"), ("cast", "cast"), ("info", "sent"), ("call", "patient")]


def test_a_suspended_server_can_be_stopped(server, log):
    sys.suspend(server)
    server.send("waits")
    stop(server, SHUTDOWN)
    assert log == [("terminate", SHUTDOWN)]


def test_a_suspended_server_that_traps_exits_ends_with_its_parent_and_nobody_else(log):
    """OTP: system_terminate."""
    pids, go = [], Event()

    def parent(process):
        pids.append(Probe.start_link(log, lambda self: setattr(self, "trap_exit", True)))
        go.wait()

    family = spawn(parent)
    settle()
    sys.suspend(pids[0])
    exit_(pids[0], "a stranger")
    assert sys.get_status(pids[0])["parent"] is family.pid
    assert log == []
    family.die("why")
    ended(pids[0])
    assert log == [("terminate", "why")]


def test_an_exit_signal_ends_a_suspended_server_that_does_not_trap(server):
    sys.suspend(server)
    exit_(server, "why")
    assert ended(server) == "why"


@pytest.mark.parametrize("kind", ["parent", "name"])
def test_get_status_shape(log, kind):
    """Case 78, GS call_format_status: pid, module, running, parent, formatted state."""

    class Secretive(Probe):
        def format_state(self, state):
            return {"names": sorted(state)}

    def starter(process):
        pid = Secretive.start_link(log, name="shy") if kind == "parent" else Secretive.start(log, name="shy")
        status = sys.get_status(pid)
        stop(pid)
        assert status == {
            "pid": pid,
            "module": Secretive,
            "status": "running",
            "parent": process.pid if kind == "parent" else None,
            "registered_name": "shy",
            "hibernating": False,
            "state": {"names": ["log"]},
        }
        return status

    assert as_process(starter)


def test_get_status_shows_the_state_as_it_is_unless_asked_otherwise(server, log):
    assert sys.get_status(server)["state"] == {"log": log}


# When there is no answer.


@pytest.mark.parametrize("what", ASKS)
def test_sys_dead_and_busy(server, busy, what):
    """Case 80, PR B40: NoProc, timeout. What was asked is done all the same when its turn comes."""
    with pytest.raises(CallTimeout, match=r"did not answer in 0\.002 s") as caught:
        ASKS[what](server, 2 * MS)
    assert caught.value.request[0] == what
    assert (caught.value.reason, caught.value.sent) == ("timeout", True)
    busy.set()
    sys.terminate(server)
    for target in (server, "probe", None):
        with pytest.raises(NoProc) as gone:
            ASKS[what](target)
        assert gone.value.reason is NOPROC


def test_what_timed_out_is_done_when_its_turn_comes(server, busy):
    with pytest.raises(CallTimeout):
        sys.suspend(server, 2 * MS)
    busy.set()
    assert sys.get_status(server)["status"] == "suspended"


def test_a_process_that_is_no_gen_server_is_told_so_at_once():
    process = spawn(idle)
    with pytest.raises(NoProc, match="takes no system messages: it runs a function and is no gen_server") as caught:
        sys.get_state(process.pid)
    assert caught.value.reason is NOPROC
    exit_(process.pid, KILL)
    ended(process)
    with pytest.raises(NoProc, match="is dead"):
        sys.get_state(process.pid)


@pytest.mark.parametrize("target", [7, b"probe", "", object()])
def test_what_is_no_target_is_an_argument_error(target):
    with pytest.raises(TypeError, match="a pid, a name or a client"):
        sys.get_state(target)


def test_a_bad_timeout_is_an_argument_error(server):
    with pytest.raises(ConfigError, match="timeout is a number of at least 0"):
        sys.get_state(server, timeout=-1)


def test_a_process_cannot_ask_itself(server):
    def ask(self, _from):
        with pytest.raises(CallingSelf):
            sys.get_state(self.pid)
        return Reply("refused")

    assert server.call(ask) == "refused"


def test_a_server_that_ends_before_its_turn_says_why(server, busy):
    server.cast(lambda _: Stop(Shutdown("enough")))
    gevent.spawn_later(MS, busy.set)
    with pytest.raises(ServerExit) as caught:
        sys.get_state(server)
    assert caught.value.reason == Shutdown("enough")


def test_system_messages_take_their_turn(server, log):
    server.cast(lambda self: setattr(self, "count", 1))
    assert sys.get_state(server)["count"] == 1


def test_any_thread_may_ask(server, log):
    assert Native(sys.get_state, server).result() == {"log": log}
    Native(sys.suspend, "probe").result()
    with pytest.raises(CallExit) as caught:
        Native(sys.replace_state, server, lambda _: 1 // 0).result()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert Native(sys.get_status, server).result()["status"] == "suspended"


# It changes nothing else.


def test_a_system_message_neither_cancels_an_idle_timeout_nor_puts_it_off(server, log, clock):
    """Rules 4.3."""
    server.call(lambda *_: Reply(1, IdleTimeout(60)))
    clock.advance(59, server)
    sys.get_state(server)
    assert log == []
    clock.advance(1, server)
    assert log == [("info", TIMEOUT)]


def test_an_idle_timeout_that_passes_while_it_is_suspended_fires_when_it_is_resumed(server, log, clock):
    server.call(lambda *_: Reply(1, IdleTimeout(60)))
    sys.suspend(server)
    clock.advance(61, server)
    assert log == []
    sys.resume(server)
    log.wait_for(("info", TIMEOUT))


def test_a_message_that_waited_while_it_was_suspended_cancels_the_idle_timeout(server, log, clock):
    server.call(lambda *_: Reply(1, IdleTimeout(60)))
    sys.suspend(server)
    server.send("waits")
    clock.advance(61, server)
    sys.resume(server)
    assert server.call("last") == "last"
    clock.advance(61, server)
    assert log == [("info", "waits"), ("call", "last")]


def test_hibernate_survives_suspend(server):
    """Optional, GS hibernate: suspend and resume, and being looked at, keep it hibernating; a message wakes it."""

    def is_hibernating():
        gevent.sleep(0)
        return info(server)["status"] == "hibernating", sys.get_status(server)["hibernating"]

    server.call(lambda *_: Reply(1, HIBERNATE))
    assert is_hibernating() == (True, True)
    sys.suspend(server)
    assert is_hibernating() == (True, True)
    sys.resume(server)
    assert is_hibernating() == (True, True)
    server.call("wakes it")
    assert is_hibernating() == (False, False)


def test_a_server_may_be_started_hibernating_and_looked_at(log):
    pid = Probe.start(log, lambda _: Ok(HIBERNATE))
    assert sys.get_status(pid)["hibernating"] is True
    stop(pid)


# Being watched.


def test_statistics_and_log(server, log):
    """Optional, PR B42: message counts, last events."""
    assert sys.statistics(server, "get") is None
    assert sys.log(server, "get") is None
    sys.statistics(server, True)
    sys.log(server, True)
    server.call("ask")
    server.cast("tell")
    server.send("info")
    counts = sys.statistics(server, "get")
    assert (counts["messages_in"], counts["messages_out"]) == (3, 1)
    assert counts["start_time"] <= counts["current_time"]
    events = sys.log(server, "get")
    assert [event[0] for event in events] == ["in", "out", "in", "noreply", "in", "noreply"]
    assert (events[0][1].request, events[1][1], events[2][1].request, events[4][1]) == ("ask", "ask", "tell", "info")
    sys.statistics(server, False)
    sys.log(server, False)
    assert sys.statistics(server, "get") is None
    assert sys.log(server, "get") is None


@pytest.mark.parametrize("flag", [3, True])
def test_the_log_keeps_as_many_events_as_it_was_told(server, flag):
    sys.log(server, flag)
    for n in range(20):
        server.cast(n)
    events = sys.log(server, "get")
    assert len(events) == (10 if flag is True else flag)
    assert events[-2][1].request == 19


@pytest.mark.parametrize("flag", [None, "true", 1.5, "on"])
def test_a_flag_is_true_false_or_get(server, flag):
    for ask in (sys.statistics, sys.log):
        with pytest.raises(ConfigError, match="the flag is True, False or 'get', not "):
            ask(server, flag)


@pytest.mark.parametrize("count", [0, -1])
def test_a_log_of_nothing_is_refused(server, count):
    with pytest.raises(ConfigError, match=f"the count of events is a whole number of at least 1, not {count}"):
        sys.log(server, count)


def test_trace_gives_each_event_to_a_function(server):
    seen = []
    sys.trace(server, lambda pid, event: seen.append((pid, event[0])))
    server.call("ask")
    sys.trace(server, False)
    server.call("ask")
    assert seen == [(server, "in"), (server, "out")]


def test_trace_takes_a_function_or_a_flag(server):
    with pytest.raises(ConfigError, match="trace takes True, False or a function of a pid and an event, not 'get'"):
        sys.trace(server, "get")


def test_terminate_is_stop(server, log):
    sys.suspend(server)
    sys.terminate(server)
    assert log == [("terminate", NORMAL)]
