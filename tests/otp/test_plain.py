"""Greenlets that are no processes: what they can do, and when their records end."""

from __future__ import annotations

import gc

import gevent
import greenlet
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, as_process, ended, idle
from otp.kernel import spawn as process_of

from erps_gevent.errors import ConfigError, Exit
from erps_gevent.otp.mailbox import receive, send
from erps_gevent.otp.plain import record
from erps_gevent.otp.primitives import current, exit_, info, is_alive, kill, link, monitor, spawn, spawn_link, trap_exit
from erps_gevent.otp.process import Down, ExitSignal
from erps_gevent.otp.words import KILLED, NORMAL


@pytest.fixture
def idler():
    process = process_of(idle)
    yield process.pid
    kill(process.pid)
    ended(process)


def in_greenlet(function):
    """Run it in a plain greenlet and return its value."""
    return gevent.spawn(function).get(timeout=PATIENCE)


@pytest.mark.parametrize("where", [in_greenlet, lambda function: Native(function).result()], ids=["greenlet", "thread"])
def test_a_plain_greenlet_sends_receives_and_monitors(where):
    def talks():
        me = current()
        pid = spawn(lambda: send(me, "hello"))
        ref = monitor(pid)
        return [receive(timeout=PATIENCE), receive(timeout=PATIENCE)] == ["hello", Down(ref, pid, NORMAL)]

    assert where(talks)


def test_a_link_from_a_plain_greenlet_is_an_error_that_names_the_remedy(idler):
    with pytest.raises(ConfigError, match=r"no process.*spawn_link\(function\), or set trap_exit\(True\)"):
        in_greenlet(lambda: link(idler))


def test_a_process_cannot_link_itself_to_a_plain_greenlet():
    def main(_):
        plain = gevent.spawn(lambda: (current(), Event().wait()))
        gevent.sleep(0)
        with pytest.raises(ConfigError, match="spawn_link"):
            link(plain.erps_process.pid)
        plain.kill()
        return True

    assert as_process(main)


def test_a_plain_greenlet_that_traps_exits_is_linked_and_has_messages():
    def traps():
        trap_exit()
        pid = spawn_link(lambda: exit_(current(), "boom"))
        return receive(timeout=PATIENCE) == ExitSignal(pid, "boom")

    assert in_greenlet(traps)


BOOM = ValueError("boom")


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda: "value", NORMAL),
        (lambda: raise_(BOOM), BOOM),
        (lambda: raise_(Exit("left")), "left"),
        (lambda: raise_(gevent.GreenletExit()), KILLED),
        (lambda: exit_(current(), "mine"), "mine"),
    ],
)
def test_the_record_ends_with_the_greenlet_and_its_reason(how, reason):
    pids = []

    def runs():
        pids.append(current())
        gevent.sleep(0)
        how()

    running = gevent.Greenlet(runs)
    running.start()
    gevent.sleep(0)
    seen = []
    pids[0].process.monitor(seen.append)
    running.join(PATIENCE)
    gevent.sleep(0)
    assert seen == [reason]
    assert info(pids[0]) is None


def test_an_exit_ends_a_plain_greenlet_that_others_address():
    plain = gevent.spawn(lambda: (current(), Event().wait()))
    gevent.sleep(0)
    pid = plain.erps_process.pid
    exit_(pid, "away")
    assert ended(pid) == "away"


def test_an_exit_of_main_is_thrown_once_and_main_goes_on_as_another():
    """A main greenlet does not die of it."""

    def main():
        before = current()
        spawn(exit_, before, "why")
        with pytest.raises(Exit) as caught:
            receive(timeout=PATIENCE)
        with pytest.raises(Exit) as own:
            exit_(current(), "mine")
        return caught.value.reason, own.value.reason, is_alive(before), current() is not before

    assert Native(main).result() == ("why", "mine", False, True)


def test_a_second_exit_of_a_main_that_has_ended_is_dropped():
    def main():
        before = record()
        with pytest.raises(Exit):
            before.die("one", now=True)
        before.die("two")
        return before.alive

    assert Native(main).result() is False


def test_the_record_of_a_raw_greenlet_ends_when_it_is_forgotten():
    pids = []
    raw = greenlet.greenlet(lambda: pids.append(current()))
    raw.switch()
    assert "raw greenlet" in repr(pids[0])
    assert pids[0].is_alive()
    del raw
    gc.collect()
    assert not pids[0].is_alive()


def test_a_raw_greenlet_that_is_told_to_exit_loses_its_record():
    pids = []
    raw = greenlet.greenlet(lambda: pids.append(current()))
    raw.switch()
    exit_(pids[0], "why")
    assert not pids[0].is_alive()


def test_the_record_says_which_thread_or_greenlet_it_is_of():
    assert "main" in Native(lambda: repr(current())).result()
    assert "Greenlet-" in in_greenlet(lambda: repr(current()))


def test_a_main_that_traps_exits_and_is_killed_by_a_process_linked_to_it_takes_all_of_them_along():
    """The one that kills is told last of all, and not in the middle of telling the others."""

    def main():
        trap_exit()
        me, go = current(), Event()
        killer = spawn_link(lambda: (go.wait(), kill(me)))
        others = [spawn_link(receive) for _ in range(3)]
        go.set()
        with pytest.raises(Exit) as caught:
            receive(str, timeout=PATIENCE)
        for pid in (killer, *others):
            ended(pid)
        return caught.value.reason, is_alive(me)

    assert Native(main).result() == (KILLED, False)
