"""The class statement, starting, trap_exit, defer and run_blocking."""

from __future__ import annotations

import contextlib
import gc
import weakref
from contextvars import ContextVar

import gevent
import pytest
from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original
from otp.kernel import PATIENCE, Native, Phonebook, Probe, as_process, ended, settle

from erps_gevent.errors import AlreadyStarted, CallExit, ConfigError, ErrorReply, Exit, NoProc, ServerExit, StartError
from erps_gevent.otp.behaviour import Option, flag
from erps_gevent.otp.bridge import get_ident
from erps_gevent.otp.gen import call, cast, stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.mailbox import receive
from erps_gevent.otp.messages import Continue, Continuing, Ok, Reply, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.primitives import exit_, kill
from erps_gevent.otp.process import Down, ExitSignal, whereis
from erps_gevent.otp.words import KILL, KILLED, NORMAL


@pytest.fixture
def log():
    return []


@pytest.fixture
def server(log):
    pid = Probe.start(log)
    yield pid
    exit_(pid, KILL)
    ended(pid)


# The class statement.


def test_an_init_with_underscores_is_refused_at_the_class_statement():
    with pytest.raises(TypeError, match=r"Wrong defines __init__; a process starts in init\(self, ...\): rename it"):

        class Wrong(GenServer):
            def __init__(self):
                """Never called."""


def test_an_init_with_underscores_of_a_mixin_is_refused_too():
    class Mixin:
        def __init__(self):
            """Never called."""

    with pytest.raises(TypeError, match="Mixin defines __init__"):

        class Wrong(Mixin, GenServer):
            """Its first base would be left out."""


@pytest.mark.parametrize("name", ["trap_exit", "pid"])
def test_an_attribute_that_would_hide_the_process_own_is_refused(name):
    with pytest.raises(TypeError, match=rf"Wrong\.{name} would hide the process's own"):
        type("Wrong", (GenServer,), {name: True})


def test_a_face_with_options_may_have_an_init_with_underscores_of_its_own():
    class Face(GenServer):
        OPTIONS = {"safe": Option(True, flag)}

        def __init__(self):
            """As Client has."""

    class Mine(Face, safe=False):
        """Inherits it."""

    assert Mine.class_options == {"safe": False}

    class Heir(Mine):
        """Inherits the options too."""

    assert Heir.class_options == {"safe": False}
    with pytest.raises(ConfigError, match="class Bad: safe is True or False"):

        class Bad(Face, safe="yes"):
            """A bad option."""


def test_an_unknown_option_is_refused_at_the_class_statement():
    with pytest.raises(TypeError, match="class Wrong has no option 'colour'"):

        class Wrong(GenServer, colour="red"):
            """No such option."""


# Starting.


def test_start_link_links():
    """Case 2, EG "start_link/2, call/2 and cast/2"."""

    def starter(process):
        pid = Probe.start_link()
        linked = list(process.links) == [pid.process] and list(pid.process.links) == [process]
        return linked, pid.process.parent is process, stop(pid)

    assert as_process(starter)[:2] == (True, True)


def test_start_does_not_link():
    """Case 3, EG "start/2"."""

    def starter(process):
        pid = Probe.start()
        links = dict(process.links)
        stop(pid)
        return links, pid.process.parent

    assert as_process(starter) == ({}, None)


@pytest.mark.parametrize(("forward", "callers"), [(True, 1), (False, 0)])
def test_a_server_knows_its_callers_if_it_is_to(forward, callers):
    def starter(process):
        pid = Probe.start(forward_callers=forward)
        stop(pid)
        return pid.process.callers == (process.pid,) * callers

    assert as_process(starter)


def test_start_link_from_a_greenlet_that_is_no_process_has_nobody_to_link_to():
    pid = Probe.start_link()
    assert pid.process.links == {}
    stop(pid)


@pytest.mark.parametrize("name", ["local", Via(Phonebook(), "key")], ids=["local", "via"])
def test_name_kinds(name):
    """Case 14, EG "start_link/3 with local/via": a call works through the name."""
    pid = Probe.start(name=name)
    assert whereis(name) is pid
    assert call(name, "hello") == "hello"
    stop(name)
    assert whereis(name) is None


@pytest.mark.parametrize("name", ["", b"bytes", 7, ("via", "x", "y"), Via("no such registry", "key")])
def test_bad_names_rejected(name):
    """Case 15, EG "start_link/3": an argument error that shows the value, and nothing is spawned."""
    ran = []
    with pytest.raises(ConfigError) as caught:
        Probe.start(None, ran.append, name=name)
    assert repr(name) in str(caught.value)
    gevent.sleep(0)
    assert ran == []


def test_child_spec_generated():
    """Case 22, EG "generates child_spec/1": default id and start; class options override id, restart, shutdown."""
    spec = {"id": Probe, "start": (Probe.start_link, (1,)), "restart": "permanent", "shutdown": 5.0, "type": "worker"}
    assert Probe.child_spec(1) == spec

    class Named(Probe, id="named", restart="transient", shutdown="brutal_kill"):
        """Has options of its own."""

        @classmethod
        def start_link(cls, *args, **kwargs):
            """Starts another way."""

    assert Named.child_spec(1, begin=None) == {
        "id": "named",
        "start": (Named.start_link, (1,), {"begin": None}),
        "restart": "transient",
        "shutdown": "brutal_kill",
        "type": "worker",
    }


def test_start_monitor(log):
    """Optional, GS start: returns pid and monitor; Down(stopped) arrives, also if it ends at once."""

    def starter(process):
        pid, ref = Probe.start_monitor(log, lambda _: Ok(Continue(lambda _: Stop("stopped"))))
        down = receive(Down, PATIENCE)
        return down == Down(ref, pid, "stopped"), process.links == {}

    assert as_process(starter) == (True, True)


def test_a_failed_start_monitor_leaves_no_down():
    def starter(process):
        with pytest.raises(StartError):
            Probe.start_monitor(None, lambda _: Stop("why"))
        with pytest.raises(AlreadyStarted):
            Probe.start_monitor(name="taken")
        return list(process.inbox.mailbox), dict(process.monitoring)

    pid = Probe.start(name="taken")
    assert as_process(starter) == ([], {})
    stop(pid)


def test_no_name_is_none():
    pid = Probe.start(name=None)
    assert pid.process.name is None
    stop(pid)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1, 2, 3), {}, "too many positional arguments"),
        ((), {"lgo": []}, "did you mean 'log'"),
        ((), {"nmae": "x"}, "did you mean 'name'"),
    ],
)
def test_arguments_that_do_not_fit_init_fail_where_they_are_written(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        Probe.start(*args, **kwargs)


def test_a_bad_start_timeout_is_named():
    with pytest.raises(ConfigError, match=r"Probe.start: timeout is a number of at least 0 or None for ever, not -1"):
        Probe.start(timeout=-1)


def test_each_start_is_an_instance_of_its_own():
    class Counter(GenServer):
        def init(self, start, *, step=1):
            self.count, self.step = start, step

        def handle_call(self, request, from_):
            self.count += self.step
            return Reply((self.count, id(self)))

    first, second = Counter.start(1), Counter.start(10, step=5)
    (one, a), (fifteen, b) = first.call(None), second.call(None)
    assert (one, fifteen) == (2, 15)
    assert a != b
    stop(first)
    stop(second)


def test_a_process_does_not_inherit_contextvars():
    """Rules 17."""
    variable = ContextVar("variable", default="its own")
    variable.set("the starter's")
    pid = Probe.start()
    assert pid.call(lambda *_: Reply(variable.get())) == "its own"
    stop(pid)


def test_the_instance_knows_its_pid(server):
    assert server.call(lambda self, _: Reply(self.pid)) is server


# The callbacks that are not defined.


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda pid: gevent.spawn(expect_exit, pid, "hello"), "Bare has no handle_call, and was called with 'hello'"),
        (lambda pid: pid.cast("hello"), "Bare has no handle_cast, and was cast 'hello'"),
        (lambda pid: pid.process.send(Continuing("on")), "Bare has no handle_continue for 'on'"),
    ],
)
def test_a_callback_that_is_not_defined_is_a_crash_that_names_it(act, text, caplog):
    """Rules 2.2 and 3.4."""

    class Bare(GenServer):
        """Defines nothing."""

    pid = Bare.start()
    act(pid)
    assert isinstance(ended(pid), NotImplementedError)
    assert text in caplog.text


def test_an_unknown_message_is_logged_and_dropped(caplog):
    """Rules 2.2."""
    pid = GenServer.start()
    pid.send("hello")
    stop(pid)
    assert "has no handle_info; dropped 'hello'" in caplog.text


# trap_exit.


def test_trap_exit_is_a_switch_of_the_process(server, log):
    assert server.call(lambda self, _: Reply(self.trap_exit)) is False
    server.call(lambda self, _: Reply(setattr(self, "trap_exit", True)))
    assert server.process.trap_exit is True
    gevent.spawn(exit_, server, "why").join()
    assert server.call("lives") == "lives"
    assert log[0] == ("info", ExitSignal(None, "why"))


def test_trap_exit_is_true_or_false(server):
    def wrong(self, _from):
        with pytest.raises(ConfigError, match="trap_exit is True or False, not 'yes'"):
            self.trap_exit = "yes"
        return Reply("refused")

    assert server.call(wrong) == "refused"


# defer.


def test_defer_replies_when_it_is_done_and_the_next_message_runs_meanwhile(server):
    go = Event()
    deferred = gevent.spawn(server.call, lambda self, from_: self.defer(from_, lambda n: go.wait() and n + 1, 41))
    gevent.sleep(0)
    assert server.call("meanwhile") == "meanwhile"
    assert not deferred.ready()
    go.set()
    assert deferred.get() == 42


@pytest.mark.parametrize("from_", [None, "from", gevent.Greenlet()])
def test_defer_without_the_address_of_a_call_says_who_has_one(server, from_):
    def wrong(self, _from):
        with pytest.raises(TypeError, match="defer takes the from_ of handle_call, which says whom to answer, not"):
            self.defer(from_, pytest.fail)
        return Reply("refused")

    assert server.call(wrong) == "refused"


@pytest.mark.parametrize(
    "ask", [lambda pid: call(pid, "x" * 100_000), lambda pid: cast(pid, "x" * 100_000)], ids=["call", "cast"]
)
def test_a_crash_for_want_of_a_callback_does_not_repeat_a_large_request(caplog, ask):
    pid = GenServer.start()
    with contextlib.suppress(CallExit):
        ask(pid)
    ended(pid)
    assert "has no handle_ca" in caplog.text
    assert len(caplog.text) < 10_000


def test_a_crash_for_want_of_handle_continue_does_not_repeat_a_large_argument(caplog):
    class Continues(GenServer):
        def init(self):
            return Ok(then=Continue("x" * 100_000))

    ended(Continues.start())
    assert "has no handle_continue for 'xxx" in caplog.text
    assert len(caplog.text) < 10_000


def test_an_error_reply_in_defer_is_an_answer(server):
    def refuse():
        raise ErrorReply("busy", "later")

    with pytest.raises(ErrorReply, match="busy: later"):
        server.call(lambda self, from_: self.defer(from_, refuse))
    assert server.call("lives") == "lives"


@pytest.mark.parametrize("trap", [True, False])
@pytest.mark.parametrize("failure", [KeyError("boom"), Exit("why"), SystemExit(3)])
def test_any_other_failure_in_defer_is_told_to_the_caller_and_is_a_crash_of_a_linked_process(
    server, log, trap, failure
):
    def crash():
        raise failure

    reason = failure.reason if isinstance(failure, Exit) else failure
    server.call(lambda self, _: Reply(setattr(self, "trap_exit", trap)))
    with pytest.raises(ServerExit) as caught:
        server.call(lambda self, from_: self.defer(from_, crash))
    assert caught.value.reason is reason
    gevent.sleep(0)
    gevent.sleep(0)
    assert server.is_alive() is trap
    if trap:
        assert server.call("lives") == "lives"
        assert [message.reason for kind, message in log if kind == "info"] == [reason]


def test_a_deferred_function_that_is_killed_before_it_begins_is_told_to_the_caller(server):
    def handler(self, from_):
        self.trap_exit = True
        answer = self.defer(from_, lambda: "never")
        for task in self._process.links:
            kill(task.pid)
        return answer

    with gevent.Timeout(PATIENCE), pytest.raises(ServerExit) as caught:
        server.call(handler, timeout=None)
    assert caught.value.reason is KILLED
    assert server.call("lives") == "lives"


def test_a_trapping_server_does_not_hear_of_a_defer_that_is_done(server, log):
    server.call(lambda self, _: Reply(setattr(self, "trap_exit", True)))
    assert server.call(lambda self, from_: self.defer(from_, lambda: 1)) == 1
    assert server.call("next") == "next"
    assert log == [("call", "next")]
    assert server.process.links == {}


def test_what_is_deferred_ends_with_the_server(server):
    ended_ = Event()

    def work():
        try:
            Event().wait()
        finally:
            ended_.set()

    caller = gevent.spawn(lambda: expect_exit(server, lambda self, from_: self.defer(from_, work)))
    gevent.sleep(0)
    gevent.sleep(0)
    server.cast(lambda _: Stop("why"))
    assert caller.get().reason == "why"
    assert ended_.wait(PATIENCE)


def expect_exit(server, request):
    with pytest.raises(ServerExit) as caught:
        server.call(request)
    return caught.value


# run_blocking.


def test_run_blocking_runs_in_another_thread_while_other_processes_run(server):
    other = Probe.start()
    seen = []

    def blocking(n):
        return n, get_ident()

    def handler(self, _from):
        gevent.spawn(lambda: seen.append(other.call("meanwhile")))
        return Reply(self.run_blocking(blocking, 7))

    number, thread = server.call(handler)
    assert number == 7
    assert thread != get_ident()
    assert seen == ["meanwhile"]
    stop(other)


def test_what_run_blocking_raises_is_raised_in_the_handler(server):
    def handler(self, _from):
        with pytest.raises(KeyError):
            self.run_blocking({}.pop, "missing")
        return Reply("caught")

    assert server.call(handler) == "caught"


def test_run_blocking_may_call_other_processes_through_the_bridge(server):
    other = Probe.start()
    assert server.call(lambda self, _: Reply(self.run_blocking(other.call, "from a thread"))) == "from a thread"
    stop(other)


def test_run_blocking_in_a_full_pool_parks_until_there_is_a_thread(server, monkeypatch):
    monkeypatch.setattr(get_hub().threadpool, "maxsize", 1)
    others = [Probe.start() for _ in range(3)]
    calls = [gevent.spawn(one.call, lambda self, _: Reply(self.run_blocking(get_ident))) for one in others]
    assert all(thread != get_ident() for thread in (call.get(timeout=10) for call in calls))
    for one in others:
        stop(one)


def test_a_timeout_of_gevent_ends_the_wait_for_run_blocking_and_not_its_thread(server):
    gate, done = get_original("_thread", "allocate_lock")(), []
    gate.acquire()

    def blocking():
        gate.acquire()
        done.append(True)

    def handler(self, _from):
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            self.run_blocking(blocking)
        gate.release()
        return Reply(self.run_blocking(len, "after"))

    assert server.call(handler) == 5
    with gevent.Timeout(10):
        while not done:
            gevent.sleep(0.001)


def test_run_blocking_may_be_what_defer_runs(server):
    handler = lambda self, from_: self.defer(from_, self.run_blocking, get_ident)  # noqa: E731
    assert server.call(handler) != get_ident()


def test_a_process_lives_in_the_hub_of_the_thread_that_started_it(server):
    assert server.process.hub is get_hub()
    assert Native(lambda: stop(Probe.start())).result() is None


# Memory.


@pytest.mark.parametrize("end", ["stop", "crash", "exit", "kill", "init", "terminate", "shadow"])
def test_no_cycle_keeps_the_state_of_a_dead_process_alive(end):
    refs = []

    class Held(GenServer):
        def init(self):
            refs.append(weakref.ref(self))
            if end == "init":
                raise KeyError("boom")

        def handle_cast(self, request):
            if end == "crash":
                raise KeyError("boom")
            if end == "exit":
                raise SystemExit(3)
            return Stop(NORMAL)

        def handle_call(self, request, from_):
            return Reply(request)

        def terminate(self, reason):
            if end == "terminate":
                raise KeyError("boom")

    gc.collect()
    gc.disable()
    try:
        if end == "init":
            try:
                Held.start()
            except Exception:  # noqa: BLE001  pytest.raises would hold it
                pid = None
        else:
            pid = Held.start_link()
            pid.call("hello")
            exit_(pid, KILL) if end == "kill" else pid.cast("end")
            ended(pid)
        settle()
        assert refs[0]() is None, gc.get_referrers(refs[0]())
        assert pid is None or not pid.is_alive()
    finally:
        gc.enable()


def test_what_was_not_started_has_no_pid():
    class Idle(GenServer):
        """A server."""

    with pytest.raises(NoProc, match="has no process yet"):
        Idle().pid
