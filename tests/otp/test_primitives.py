"""Spawn, link, monitor, exit: what processes do with each other, as users call it."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, as_process, ended

from erps_gevent.errors import AlreadyStarted, ConfigError, Exit, NoProc
from erps_gevent.otp import primitives as erps
from erps_gevent.otp.mailbox import receive
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import Down, ExitSignal, whereis
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL


def wait():
    Event().wait()


@pytest.fixture
def idler():
    pid = erps.spawn(wait)
    yield pid
    erps.kill(pid)
    ended(pid)


@pytest.fixture
def dead():
    pid = erps.spawn(lambda: None)
    ended(pid)
    return pid


# Spawning.


def test_spawn_runs_the_function_with_its_arguments_at_the_next_switch():
    got = []
    pid = erps.spawn(lambda *args, **kwargs: got.append((args, kwargs)), 1, two=2)
    assert got == []
    assert ended(pid) is NORMAL
    assert got == [((1,), {"two": 2})]


def test_a_process_is_called_after_its_function():
    pid = erps.spawn(wait)
    assert repr(pid).endswith(" wait>")
    erps.kill(pid)


def test_only_a_function_can_be_spawned():
    with pytest.raises(TypeError, match="runs a function, not 7"):
        erps.spawn(7)


def test_spawn_does_not_link_and_spawn_link_does():
    def main(me):
        alone, linked = erps.spawn(wait), erps.spawn_link(wait)
        links = list(me.links)
        erps.unlink(linked)
        erps.kill(alone)
        erps.kill(linked)
        return links == [linked.process], linked.process.parent is me

    assert as_process(main) == (True, True)


def test_a_spawned_process_takes_its_starter_along_only_if_they_are_linked():
    """Case 86, PR B30."""

    def starts(how):
        how(lambda: erps.exit_(erps.current(), "boom"))
        wait()

    assert ended(erps.spawn(starts, erps.spawn_link)) == "boom"
    alone = erps.spawn(starts, erps.spawn)
    gevent.sleep(0)
    assert erps.is_alive(alone)
    erps.kill(alone)


def test_spawn_link_from_a_plain_greenlet_starts_a_process_on_its_own():
    pid = erps.spawn_link(lambda: erps.exit_(erps.current(), "boom"))
    assert pid.process.links == {}
    assert ended(pid) == "boom"


def test_spawn_monitor_tells_how_it_ended_however_soon_that_is():
    def main(_):
        pid, ref = erps.spawn_monitor(lambda: None)
        return receive(timeout=PATIENCE) == Down(ref, pid, NORMAL)

    assert as_process(main)


def test_current_is_the_same_pid_each_time():
    assert as_process(lambda me: erps.current() is me.pid)
    assert erps.current() is erps.current()


# Links.


def test_link_and_unlink_bind_the_running_process(idler):
    def main(me):
        erps.link(idler)
        linked = erps.info(me.pid)["links"]
        erps.unlink(idler)
        return linked, erps.info(me.pid)["links"]

    assert as_process(main) == ([idler], [])


def test_linking_a_dead_process_is_noproc(dead):
    """Rules 7."""

    def main(_):
        with pytest.raises(NoProc):
            erps.link(dead)
        erps.trap_exit()
        erps.link(dead)
        return receive(timeout=0)

    assert as_process(main) == ExitSignal(dead, NOPROC)


def test_a_process_of_another_thread_cannot_be_linked_or_monitored(idler):
    def links():
        erps.trap_exit()
        with pytest.raises(ConfigError, match="hubs of different threads; call, cast and send work"):
            erps.link(idler)
        with pytest.raises(ConfigError, match="hub of another thread; call, cast and send work"):
            erps.monitor(idler)
        return True

    assert Native(links).result()


# Monitors.


def test_down_has_the_reference_the_target_and_the_reason(idler):
    """Case 96, PR B03: once per monitor."""

    def main(_):
        ref = erps.monitor(idler)
        erps.exit_(idler, "why")
        return receive(timeout=PATIENCE) == Down(ref, idler, "why")

    assert as_process(main)


def test_a_monitor_by_name_says_the_name(idler):
    """Case 97, PR B32: dead or unknown, by pid and by name, is noproc at once."""

    def main(_):
        erps.register(idler, "named")
        ref = erps.monitor("named")
        erps.kill(idler)
        down = receive(timeout=PATIENCE)
        unknown = erps.monitor("named"), erps.monitor(idler)
        return down == Down(ref, "named", KILLED) and [receive(timeout=0), receive(timeout=0)] == [
            Down(unknown[0], "named", NOPROC),
            Down(unknown[1], idler, NOPROC),
        ]

    assert as_process(main)


def test_what_is_neither_pid_nor_name_cannot_be_monitored():
    with pytest.raises(ConfigError, match="not 7"):
        erps.monitor(7)


@pytest.mark.parametrize("flush", [False, True])
def test_demonitor_flush(idler, flush):
    """Case 99, PR B33: flush removes a Down that is in the mailbox already, and nothing else."""

    def main(me):
        refs = [erps.monitor(idler), erps.monitor(idler)]
        me.send("other")
        erps.kill(idler)
        ended(idler)
        erps.demonitor(refs[1], flush=flush)
        left = [message if message == "other" else message.ref for message in me.inbox.mailbox]
        return left == ["other", refs[0], *([] if flush else [refs[1]])]

    assert as_process(main)


def test_demonitor_before_the_end_leaves_nothing_on_either_side(idler):
    def main(me):
        ref = erps.monitor(idler)
        watched = erps.info(me.pid)["monitors"], erps.info(idler)["monitored_by"]
        erps.demonitor(ref, flush=True)
        erps.demonitor(ref)
        return watched, erps.info(me.pid)["monitors"], erps.info(idler)["monitored_by"]

    assert as_process(main) == (([idler], 1), [], 0)


def test_flushing_a_monitor_that_never_was_removes_nothing():
    def main(me):
        me.send("other")
        erps.demonitor(4711, flush=True)
        return list(me.inbox.mailbox)

    assert as_process(main) == ["other"]


def test_a_process_that_ends_watches_nobody_any_more(idler):
    ended(erps.spawn(lambda: erps.monitor(idler)))
    assert idler.process.monitors == {}


# Exit signals.


def test_exit_says_who_sent_it(idler):
    """Case 83, PR B22, B24: a trapping process has a message and lives."""
    got = []

    def main(me):
        erps.trap_exit()
        erps.exit_(me.pid, "from myself")
        sender = erps.spawn(erps.exit_, me.pid, "why")
        got.extend([receive(timeout=PATIENCE), receive(timeout=PATIENCE)])
        return got == [ExitSignal(me.pid, "from myself"), ExitSignal(sender, "why")]

    assert as_process(main)


def test_kill_ends_a_trapping_process_and_its_partners_see_killed():
    """Case 84, PR B28, B52."""

    def main(_):
        erps.trap_exit()
        stubborn = erps.spawn_link(lambda: (erps.trap_exit(), wait()))
        gevent.sleep(0)
        erps.kill(stubborn)
        return receive(timeout=PATIENCE) == ExitSignal(stubborn, KILLED)

    assert as_process(main)


def test_trap_exit_returns_how_it_was():
    assert as_process(lambda _: (erps.trap_exit(), erps.trap_exit(True), erps.trap_exit(False))) == (False, True, True)


def test_trap_exit_is_true_or_false():
    with pytest.raises(ConfigError, match="True or False, not 1"):
        erps.trap_exit(1)


# Names and facts.


def test_a_registered_name_leads_to_the_pid_until_it_is_taken_back(idler):
    erps.register(idler, "idler")
    assert whereis("idler") is idler
    assert erps.info(idler)["registered_name"] == "idler"
    erps.unregister("idler")
    assert whereis("idler") is None
    with pytest.raises(NoProc, match="no process 'idler'"):
        erps.unregister("idler")


def test_a_name_is_given_to_the_living_and_once(idler, dead):
    with pytest.raises(NoProc, match="it is dead"):
        erps.register(dead, "idler")
    erps.register(idler, "idler")
    other = erps.spawn(wait)
    with pytest.raises(AlreadyStarted) as caught:
        erps.register(other, "idler")
    assert caught.value.pid is idler
    erps.kill(other)


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda: erps.link("name"), "link"),
        (lambda: erps.exit_("name", KILL), "exit_"),
        (lambda: erps.is_alive(None), "is_alive"),
        (lambda: erps.info(7), "info"),
        (lambda: erps.register("name", "name"), "register"),
    ],
)
def test_what_takes_a_pid_says_so(act, name):
    with pytest.raises(TypeError, match=f"{name} takes a Pid, not .*whereis"):
        act()


def test_process_info(idler, dead):
    """Case 95, EPr "info/2": links, monitors, mailbox length, name; dead is None."""

    def main(me):
        erps.link(idler)
        me.send("one")
        facts = erps.info(me.pid)
        erps.unlink(idler)
        return facts

    facts = as_process(main)
    assert facts == {
        "label": "test",
        "registered_name": None,
        "links": [idler],
        "monitors": [],
        "monitored_by": 1,
        "trap_exit": False,
        "message_queue_len": 1,
        "status": "running",
        "parent": None,
        "callers": [],
    }
    assert erps.info(dead) is None


def test_info_tells_who_waits_for_a_message_and_who_started_it():
    def main(me):
        child = erps.spawn_link(receive)
        gevent.sleep(0)
        facts = erps.info(child)
        child.process.hibernating = True
        assert erps.info(child)["status"] == "hibernating"
        erps.unlink(child)
        erps.kill(child)
        return facts["status"] == "waiting" and facts["parent"] is me.pid

    assert as_process(main)


def test_is_alive_until_the_end(idler):
    assert erps.is_alive(idler)
    erps.exit_(idler, "why")
    ended(idler)
    assert not erps.is_alive(idler)


def test_an_exit_raised_is_the_reason_and_any_other_way_out_has_its_own():
    """Case 90, PR B34."""

    def leave(reason):
        raise Exit(reason)

    assert ended(erps.spawn(leave, ("r", 1))) == ("r", 1)


def test_a_via_of_no_registry_is_nobody():
    assert whereis(Via("no such registry", 1)) is None
