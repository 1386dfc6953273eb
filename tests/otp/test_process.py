"""Processes: links, monitors, exit signals, names."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, as_process, ended, idle, settle, spawn
from support import MS

from erps_gevent.errors import AlreadyStarted, ConfigError, Exit, NoProc
from erps_gevent.otp import names, thrower
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.primitives import exit_, info, spawn_link
from erps_gevent.otp.process import Down, ExitSignal, Process, current, starter, whereis
from erps_gevent.otp.waiting import TIMED_OUT
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN


@pytest.fixture
def idler():
    process = spawn(idle, label="Idler")
    gevent.sleep(0)
    yield process
    process.die(KILLED)


@pytest.fixture
def trapper():
    process = spawn(idle, trap=True)
    gevent.sleep(0)
    yield process
    process.die(KILLED)


def raise_(error):
    raise error


# Exit reasons.

BOOM = ValueError("boom")
SYSTEM_EXIT = SystemExit(3)


@pytest.mark.parametrize(
    ("main", "reason"),
    [
        (lambda _: "any value", NORMAL),
        (lambda _: raise_(Exit(("r", 1))), ("r", 1)),
        (lambda _: raise_(Exit(None)), None),
        (lambda _: raise_(BOOM), BOOM),
        (lambda _: raise_(SYSTEM_EXIT), SYSTEM_EXIT),
        (lambda _: raise_(gevent.GreenletExit()), KILLED),
        (lambda process: exit_(process.pid, NORMAL), NORMAL),
        (lambda process: exit_(process.pid, KILL), KILLED),
    ],
)
def test_exit_reason_table(main, reason):
    """Case 90, PR B34; sys.exit() in a process does not reach main (rules 17)."""
    assert ended(spawn(main)) is reason or reason == ("r", 1)


def test_a_crash_is_logged_once_with_its_traceback(caplog):
    ended(spawn(lambda _: raise_(BOOM), label="Worker"))
    assert len(caplog.records) == 1
    assert "Worker> terminating" in caplog.text
    assert "ValueError: boom" in caplog.text


def test_ctrl_c_ends_the_process_and_reaches_the_program():
    """Rules 17: it lands in whichever greenlet is running."""
    seen = []
    process = spawn(lambda _: raise_(KeyboardInterrupt()))
    process.monitor(seen.append)
    with pytest.raises(KeyboardInterrupt):
        Event().wait(PATIENCE)
    assert [type(reason) for reason in seen] == [KeyboardInterrupt]


@pytest.mark.parametrize("begun", [True, False])
def test_a_process_whose_greenlet_is_killed_is_killed(begun, idler):
    """Rules 17: a greenlet that is killed before it has begun runs nothing of ours."""
    process = idler if begun else spawn(idle)
    process.greenlet.kill(block=False)
    assert ended(process) is KILLED
    assert not process.alive


def test_a_process_that_is_to_end_before_it_has_begun_never_runs():
    ran = []
    process = spawn(ran.append)
    process.die("early")
    assert ended(process) == "early"
    assert ran == []


def test_a_process_that_ended_before_it_was_spawned_never_runs():
    ran = []
    process = Process(Inbox())
    process.die("early")
    assert not process.alive
    process.spawn(lambda: ran.append(1))
    gevent.sleep(0)
    assert ran == []


# Exit signals.


def test_exit_normal_ignored(idler):
    """Case 81, EPr "exit(pid, :normal) does not cause..."; also from a greenlet that is no process."""
    exit_(idler.pid, NORMAL)
    as_process(lambda _: exit_(idler.pid, NORMAL) or True)
    assert idler.join(2 * MS) is TIMED_OUT
    exit_(idler.pid, "abnormal")
    assert ended(idler) == "abnormal"


def test_exit_normal_self():
    """Case 82, EPr "exit(self(), :normal) causes..."."""
    after = []
    assert ended(spawn(lambda process: (exit_(process.pid, NORMAL), after.append(1)))) is NORMAL
    assert after == []


def test_trap_converts_to_message(trapper):
    """Case 83, PR B22, B24."""
    sender = as_process(lambda process: exit_(trapper.pid, "why") or process.pid)
    gevent.spawn(exit_, trapper.pid, NORMAL).join()
    assert list(trapper.inbox.mailbox) == [ExitSignal(sender, "why"), ExitSignal(None, NORMAL)]
    assert trapper.pid.is_alive()


def test_an_exit_signal_tells_whether_its_sender_had_ended_when_it_was_sent(trapper, idler):
    def main(process):
        process.link(trapper)
        exit_(trapper.pid, "asked")

    ended(spawn(main))
    trapper.link(idler)
    idler.die("died")
    ended(idler)
    as_process(lambda _: trapper.link(idler) or True)
    exit_(trapper.pid, "by nobody")
    signals = list(trapper.inbox.mailbox)
    assert [(signal.reason, signal.ended) for signal in signals] == [
        ("asked", False),
        (NORMAL, True),
        ("died", True),
        (NOPROC, True),
        ("by nobody", False),
    ]


@pytest.mark.parametrize("trap", [True, False])
def test_kill_is_untrappable(trap):
    """Case 84, PR B28, B52."""
    process = spawn(idle, trap=trap)
    partner = spawn(idle, trap=True)
    process.link(partner)
    exit_(process.pid, KILL)
    assert ended(process) is KILLED
    assert list(partner.inbox.mailbox) == [ExitSignal(process.pid, KILLED)]
    partner.die(KILLED)


def test_a_partner_that_exits_with_kill_itself_is_trappable(trapper):
    """Rules 7, last line of the table."""
    process = spawn(lambda _: raise_(Exit(KILL)))
    process.link(trapper)
    ended(process)
    assert list(trapper.inbox.mailbox) == [ExitSignal(process.pid, KILL)]


def test_the_first_reason_stands():
    process = spawn(idle)
    process.die("first")
    process.die("second")
    assert ended(process) == "first"


def test_killed_overrides_and_is_no_second_throw(caplog):
    """Rules 17: with gevent's own kill the first of two wins."""
    caught = []

    def main(_):
        try:
            Event().wait()
        except Exit as exit_:
            caught.append(exit_.reason)
            raise

    process = spawn(main)
    gevent.sleep(0)
    process.die("first")
    process.die(KILLED)
    process.die(KILLED)
    assert ended(process) is KILLED
    assert caught == [KILLED]
    assert caplog.records == []


def test_kill_swallowed_by_except(monkeypatch, caplog):
    """Case 91: an `except BaseException` loop still dies, with a warning."""
    monkeypatch.setattr(thrower, "RETHROW", 2 * MS)
    swallowed = []

    def main(_):
        while len(swallowed) < 3:
            try:
                Event().wait()
            except BaseException as error:  # noqa: BLE001  the very thing under test
                swallowed.append(error)
        Event().wait()

    process = spawn(main)
    gevent.sleep(0)
    exit_(process.pid, KILL)
    assert ended(process) is KILLED
    gevent.sleep(0)
    assert len(swallowed) == 3
    assert caplog.text.count("swallowed its exit killed; thrown again") == 3


def test_an_exit_of_oneself_that_was_swallowed_is_thrown_again(monkeypatch):
    monkeypatch.setattr(thrower, "RETHROW", 2 * MS)

    def main(process):
        try:
            exit_(process.pid, "why")
        except BaseException:  # noqa: BLE001  the very thing under test
            Event().wait()

    assert ended(spawn(main)) == "why"


def test_a_signal_to_a_dead_process_is_dropped(idler):
    idler.die("first")
    ended(idler)
    exit_(idler.pid, KILL)
    idler.signal(None, "second")
    assert not idler.alive


# Links.


def test_link_propagates(idler):
    """Case 86, PR B30."""
    process = spawn(lambda _: raise_(Exit("why")))
    process.link(idler)
    assert ended(process) == "why"
    assert ended(idler) == "why"


def test_link_normal_ignored(idler):
    """Case 87, PR B27."""
    process = spawn(lambda _: None)
    process.link(idler)
    ended(process)
    assert idler.join(2 * MS) is TIMED_OUT
    assert idler.links == {}


def test_links_are_symmetric_and_idempotent_and_a_link_to_oneself_is_none(idler, trapper):
    """Rules 7."""
    idler.link(trapper)
    trapper.link(idler)
    idler.link(idler)
    assert (list(idler.links), list(trapper.links)) == ([trapper], [idler])
    idler.die("why")
    ended(idler)
    assert list(trapper.inbox.mailbox) == [ExitSignal(idler.pid, "why")]


def test_unlink_is_final(idler, trapper):
    """Case 89, PR B50."""
    idler.link(trapper)
    trapper.unlink(idler)
    idler.die("why")
    ended(idler)
    assert list(trapper.inbox.mailbox) == []


def test_a_link_to_a_dead_process_is_an_error_or_a_message(idler, trapper):
    """Rules 7: noproc."""
    idler.die("why")
    ended(idler)
    trapper.link(idler)
    assert list(trapper.inbox.mailbox) == [ExitSignal(idler.pid, NOPROC)]
    other = spawn(idle)
    with pytest.raises(NoProc, match="is dead") as caught:
        other.link(idler)
    assert caught.value.reason is NOPROC
    other.die(KILLED)


class Unlinkable(Process):
    linkable = False


def test_what_cannot_be_linked_is_named_with_the_remedy(idler):
    with pytest.raises(ConfigError, match=r"spawn_link\(function\)"):
        idler.link(Unlinkable(Inbox()))
    assert idler.links == {}


def test_processes_of_different_threads_cannot_be_linked(idler):
    other = Native(lambda: Process(Inbox())).result()
    with pytest.raises(ConfigError, match="hubs of different threads"):
        idler.link(other)


def test_the_starter_of_a_linked_process_is_the_running_one_if_it_can_be_linked():
    assert starter() is None
    assert as_process(lambda process: starter() is process)


# Monitors.


def test_down_once_with_reason(idler):
    """Case 96, PR B03."""
    seen = []
    idler.monitor(seen.append)
    idler.die(SHUTDOWN)
    ended(idler)
    assert seen == [SHUTDOWN]


def test_monitor_dead(idler):
    """Case 97, PR B32."""
    idler.die(SHUTDOWN)
    ended(idler)
    seen = []
    idler.monitor(seen.append)
    assert seen == [NOPROC]


def test_monitor_twice(idler):
    """Case 98, PR B33."""
    seen = []
    first, second = idler.monitor(seen.append), idler.monitor(seen.append)
    assert first != second
    idler.die("why")
    ended(idler)
    assert seen == ["why", "why"]


def test_a_demonitored_process_tells_nothing(idler):
    """Case 99, PR B33."""
    seen = []
    idler.demonitor(idler.monitor(seen.append))
    idler.demonitor(4711)
    idler.die("why")
    ended(idler)
    assert seen == []


def test_a_monitor_that_raises_keeps_nobody_from_being_told(idler, trapper, capsys):
    idler.link(trapper)
    seen = []
    idler.monitor(lambda _: raise_(KeyError("in a monitor")))
    idler.monitor(seen.append)
    idler.die("why")
    ended(idler)
    assert seen == ["why"]
    assert len(trapper.inbox.mailbox) == 1
    assert "in a monitor" in capsys.readouterr().err


def test_a_registrar_that_raises_keeps_nobody_from_being_told(idler, capsys):
    class Torn:
        def whereis_name(self, _):
            raise KeyError("in a registrar")

        def register_name(self, *_):
            return True

        def unregister_name(self, _):
            """Never reached."""

    idler.register(names.Via(Torn(), "it"))
    seen = []
    idler.monitor(seen.append)
    idler.die("why")
    ended(idler)
    assert seen == ["why"]
    assert "in a registrar" in capsys.readouterr().err


def test_join_gives_up_in_time_and_leaves_no_monitor(idler):
    assert idler.join(2 * MS) is TIMED_OUT
    assert idler.monitors == {}


def test_a_process_that_ends_ends_the_monitors_that_it_has_on_others(idler, trapper):
    trapper.monitoring[idler.monitor(print)] = idler
    trapper.die(KILLED)
    ended(trapper)
    assert idler.monitors == trapper.monitoring == {}


# Names.


def test_a_name_leads_to_the_pid_until_the_process_ends(idler):
    """Rules 11: free once a Down has been seen."""
    idler.register("it")
    seen = []
    idler.monitor(lambda _: seen.append(whereis("it")))
    assert whereis("it") is idler.pid
    idler.die("why")
    ended(idler)
    assert seen == [None]
    assert idler.name is None


def test_a_name_belongs_to_one(idler, trapper):
    idler.register("it")
    with pytest.raises(AlreadyStarted) as caught:
        trapper.register("it")
    assert caught.value.pid is idler.pid
    assert repr(idler.pid) in str(caught.value)
    idler.unregister()
    idler.unregister()
    trapper.register("it")
    assert whereis("it") is trapper.pid


def test_a_process_has_one_name_at_most(idler):
    idler.register("it")
    with pytest.raises(ConfigError, match="has a name, 'it'"):
        idler.register("another")
    assert whereis("another") is None


def test_of_many_threads_one_gets_the_name():
    def take(_):
        process = Process(Inbox())
        try:
            process.register("contended")
        except AlreadyStarted:
            return None
        return process

    threads = [Native(take, n) for n in range(8)]
    won = [process for thread in threads if (process := thread.result())]
    assert len(won) == 1
    won[0].unregister()


# Pids.


def test_a_pid_prints_its_label_and_its_number(idler):
    assert repr(idler.pid) == f"<Pid {idler.pid.serial} Idler>"
    assert repr(Process(Inbox()).pid).startswith("<Pid ")


def test_a_pid_is_copied_as_itself_and_not_pickled(idler):
    assert copy.copy(idler.pid) is idler.pid
    assert copy.deepcopy([idler.pid])[0] is idler.pid
    with pytest.raises(TypeError, match="send a name instead"):
        pickle.dumps(idler.pid)


def test_a_process_that_is_no_server_takes_messages_and_no_calls(idler):
    """Rules 2: cast never fails."""
    with pytest.raises(NoProc, match="not a gen_server") as caught:
        idler.pid.call("hello")
    assert caught.value.request == "hello"
    idler.pid.cast("hello")
    idler.pid.send("hello")
    assert list(idler.inbox.mailbox) == ["hello"]


def test_calls_and_casts_go_to_whatever_the_process_has_for_them(idler):
    class Gateway:
        def call(self, *args):
            return "call", *args

        def cast(self, *args):
            casts.append(args)

    casts = []
    idler.gateway = Gateway()
    assert idler.pid.call("hello", 1.0) == ("call", "hello", 1.0)
    idler.pid.cast("hello")
    assert casts == [("hello",)]


def test_a_message_to_a_dead_process_is_dropped(idler):
    idler.die("why")
    ended(idler)
    idler.pid.send("hello")
    assert not idler.inbox.mailbox


def test_current_is_the_running_process():
    assert gevent.spawn(current).get(timeout=PATIENCE) is None
    process = as_process(lambda process: (process, current()))
    assert process[0] is process[1]


def test_a_process_that_has_ended_is_not_current_for_its_monitors(idler):
    seen = []
    idler.monitor(lambda _: seen.append(current()))
    idler.die("why")
    ended(idler)
    assert seen == [None]


def test_down_says_what_a_monitor_wants_to_know(idler):
    assert Down(1, idler.pid, "why") == Down(1, idler.pid, "why")


# Other native threads.


def test_signals_and_messages_come_from_any_thread(trapper):
    Native(trapper.pid.send, "hello").result()
    Native(exit_, trapper.pid, "why").result()
    gevent.sleep(0)
    assert list(trapper.inbox.mailbox) == ["hello", ExitSignal(None, "why")]
    seen = []
    trapper.monitor(seen.append)
    Native(exit_, trapper.pid, KILL).result()
    ended(trapper)
    assert seen == [KILLED]


# What is left of a dead process.


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class State:
    """What a process holds; an object that can be referred to weakly."""


@pytest.mark.parametrize("how", ["return", "crash", "exit", "kill"])
def test_a_dead_process_keeps_nothing_alive_though_its_pid_is_held(how, no_gc):
    refs = []

    def main(_):
        state = State()
        refs.append(weakref.ref(state))
        if how == "crash":
            raise KeyError(state)
        if how == "exit":
            raise Exit(state)
        if how == "kill":
            Event().wait()

    process = spawn(main)
    gevent.sleep(0)
    exit_(process.pid, KILL)
    ended(process)
    gevent.sleep(0)
    assert refs[0]() is None
    assert process.greenlet is None
    assert process.monitors == process.links == {}


def test_a_forgotten_process_is_freed_without_the_collector(no_gc):
    process = spawn(lambda _: None)
    ended(process)
    gevent.sleep(0)
    ref = weakref.ref(process.pid)
    del process
    gc.collect()
    assert ref() is None


def test_in_a_chain_of_parents_the_last_keeps_only_its_own(no_gc):
    def beget(descendants):
        refs.append(weakref.ref(current().pid))
        if descendants:
            spawn_link(beget, descendants - 1)
        else:
            idle(None)

    refs = []
    spawn_link(beget, 4)
    settle()
    gc.collect()
    assert [ref() is not None for ref in refs] == [False, False, False, True, True]
    assert info(refs[-1]())["parent"] is refs[-2]()
    refs[-1]().process.die(KILLED)
