"""From one native thread into the hub of another: both ways of waiting, interrupts, and hubs that have gone."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from gevent.event import Event
from gevent.hub import get_hub, getcurrent
from gevent.monkey import get_original
from otp.kernel import PATIENCE, Native
from support import MS

from erps_gevent.errors import CallExit, CallTimeout, NoProc
from erps_gevent.otp import bridge
from erps_gevent.otp.bridge import get_ident, hand_over, is_foreign, run_in
from erps_gevent.otp.words import NOPROC

_native_sleep = get_original("time", "sleep")


def with_hub(function, *args):
    """Run the function in a thread that has a hub of its own, so that it waits cooperatively."""
    gevent.sleep(0)
    return function(*args)


@pytest.fixture(params=["native", "with a hub"])
def elsewhere(request):
    """Run a function in another thread of either kind; the handle of it."""
    if request.param == "native":
        return Native
    return lambda function, *args: Native(with_hub, function, *args)


@pytest.fixture
def hub():
    return get_hub()


@pytest.fixture
def other():
    """The hub of a living thread that serves until the test ends."""
    found, ready, over = [], Event(), []
    home = get_hub()

    def serve():
        stop = Event()
        found.append(get_hub())
        over.append(stop)
        home.loop.run_callback_threadsafe(ready.set)
        stop.wait(PATIENCE)

    thread = Native(serve)
    assert ready.wait(PATIENCE)
    yield found[0]
    hand_over(found[0], over[0].set)
    thread.result()


def gone_hub(destroyed):
    """The hub of a thread that has ended, which has destroyed it or has not."""

    def live():
        hub = get_hub()
        gevent.sleep(0)
        if destroyed:
            hub.destroy(destroy_loop=True)
        return hub

    hub = Native(live).result()
    while not hub.dead:
        gevent.sleep(MS)
    return hub


def test_a_hub_is_foreign_to_other_threads_only(hub):
    assert not is_foreign(hub)
    assert Native(is_foreign, hub).result()


def test_the_function_runs_in_the_other_hub_and_its_value_comes_back(hub, elsewhere):
    def where(n):
        gevent.sleep(MS)
        return n, get_ident(), get_hub()

    assert elsewhere(run_in, hub, where, 7).result() == (7, get_ident(), hub)


def test_what_it_raises_is_raised_where_it_was_asked_for(hub, elsewhere):
    def fail():
        raise KeyError("over there")

    with pytest.raises(KeyError, match="over there"):
        elsewhere(run_in, hub, fail).result()


def test_the_main_greenlet_waits_for_another_hub_while_its_own_greenlets_run(other):
    """Nothing else need be running here: that is no LoopExit."""
    ran = []
    gevent.spawn(ran.append, 1)
    assert run_in(other, lambda: get_hub() is other)
    assert ran == [1]


def test_many_threads_use_one_hub_at_once_and_no_wake_up_is_lost(hub, elsewhere):
    def work():
        return [run_in(hub, lambda n=n: n * n) for n in range(50)]

    threads = [elsewhere(work) for _ in range(6)]
    assert [thread.result() for thread in threads] == [[n * n for n in range(50)]] * 6


def test_a_timeout_of_the_waiting_greenlet_kills_the_one_over_there(other):
    ended = Event()
    home, here = get_hub(), getcurrent()

    def work():
        # As gevent does when the time is up, and not before this has begun.
        home.loop.run_callback_threadsafe(here.throw, gevent.Timeout(None))
        try:
            Event().wait(PATIENCE)
        finally:
            home.loop.run_callback_threadsafe(ended.set)

    with pytest.raises(gevent.Timeout):
        run_in(other, work)
    assert ended.wait(PATIENCE / 2)


def test_a_job_that_is_abandoned_before_it_was_begun_never_runs(hub):
    ran = []
    job = bridge.Job(ran.append, (1,))
    assert job.claim()
    job.begin()
    gevent.sleep(0)
    assert ran == []
    assert job.greenlet is None


def test_patience_ends_when_the_other_hub_does_not_turn(hub, elsewhere):
    """`timeout` covers a hub that something blocks, and says so; nothing was begun."""
    ran, failed = [], []

    def ask():
        begun = monotonic()
        try:
            run_in(hub, ran.append, 1, patience=5 * MS)
        except CallTimeout as error:
            failed.append((error, monotonic() - begun))

    thread = elsewhere(ask)
    deadline = monotonic() + PATIENCE
    while not failed and monotonic() < deadline:
        _native_sleep(MS)  # which turns no hub
    error, took = failed[0]
    thread.result()
    gevent.sleep(0)
    assert error.sent is False
    assert error.reason == "timeout"
    assert "something blocks it" in str(error)
    assert took >= 5 * MS
    assert ran == []


def test_what_was_begun_and_takes_too_long_may_have_been_executed(hub, elsewhere):
    begun = []

    def work():
        begun.append(1)
        Event().wait(PATIENCE)

    with pytest.raises(CallTimeout) as caught:
        elsewhere(lambda: run_in(hub, work, patience=500 * MS)).result()
    assert begun == [1]
    assert caught.value.sent is True


@pytest.mark.parametrize("destroyed", [True, False])
def test_a_hub_whose_thread_has_ended_is_an_error_and_not_a_wait(destroyed):
    hub = gone_hub(destroyed)
    with pytest.raises(NoProc, match="thread that this process belonged to has ended") as caught:
        run_in(hub, int)
    assert caught.value.reason is NOPROC
    hand_over(hub, pytest.fail, "nobody may call this")


def test_what_is_handed_over_runs_in_the_other_thread(other):
    seen, done = [], Event()
    home = get_hub()

    def note():
        seen.append(get_ident())
        home.loop.run_callback_threadsafe(done.set)

    hand_over(other, note)
    assert done.wait(PATIENCE)
    assert seen == [other.thread_ident]


def test_ctrl_c_in_a_job_is_the_programs_and_the_waiting_thread_is_told(hub):
    def interrupted():
        raise KeyboardInterrupt

    thread = Native(run_in, hub, interrupted)
    with pytest.raises(KeyboardInterrupt):
        Event().wait(PATIENCE)
    with pytest.raises(CallExit, match="interrupted by Ctrl-C") as caught:
        thread.result()
    assert caught.value.sent is True


def test_a_thread_that_only_calls_gets_no_hub_of_its_own(hub):
    def ask():
        run_in(hub, int)
        return bridge.get_hub_if_exists()

    assert Native(ask).result() is None


def test_who_waits_for_ever_hears_that_the_other_thread_has_ended_meanwhile(elsewhere, monkeypatch):
    monkeypatch.setattr(bridge, "LOOK_EVERY", 5 * MS)
    begun = Event()
    home = get_hub()
    found = []

    def live():
        leave = Event()
        found.extend((get_hub(), leave))
        home.loop.run_callback_threadsafe(begun.set)
        leave.wait(PATIENCE)  # a timer: the loop has something to wait for

    thread = Native(live)
    assert begun.wait(PATIENCE)
    hub, leave = found

    def ask():
        leave.set()
        Event().wait()

    waiting = elsewhere(run_in, hub, ask)
    thread.result()
    with pytest.raises(NoProc, match="has ended meanwhile") as caught:
        waiting.result()
    assert caught.value.sent is True


def test_who_waits_for_ever_waits_on_while_the_other_thread_lives(hub, elsewhere, monkeypatch):
    monkeypatch.setattr(bridge, "LOOK_EVERY", 1 * MS)

    def slow():
        gevent.sleep(20 * MS)
        return "done"

    assert elsewhere(run_in, hub, slow).result() == "done"


def test_after_a_fork_who_waits_for_a_thread_that_was_left_behind_is_told(other):
    waiting = gevent.spawn(run_in, other, Event().wait)
    gevent.sleep(0)
    bridge.after_fork()
    with pytest.raises(NoProc, match="was forked meanwhile") as caught:
        waiting.get(timeout=PATIENCE)
    assert caught.value.reason == bridge.FORKED
    assert caught.value.sent is True


def test_after_a_fork_the_thread_that_lives_on_is_not_left_behind(other):
    assert run_in(other, lambda: bridge.after_fork() or "still here") == "still here"


def test_while_the_program_ends_the_main_thread_does_not_wait_for_a_hub_that_stands_still(other, monkeypatch):
    monkeypatch.setattr(bridge, "standing_still", [other])
    with pytest.raises(NoProc, match="register atexit handlers after the import of erps_gevent") as caught:
        run_in(other, int)
    assert caught.value.reason is NOPROC


def test_who_is_interrupted_before_the_other_hub_has_begun_leaves_nothing_behind(other):
    ran, blocked, go_on = [], Event(), get_original("_thread", "allocate_lock")()
    home = get_hub()
    go_on.acquire()

    def block():
        home.loop.run_callback_threadsafe(blocked.set)
        go_on.acquire()

    hand_over(other, block)
    assert blocked.wait(PATIENCE)
    with gevent.Timeout(10 * MS, False):
        run_in(other, ran.append, "it ran", patience=PATIENCE)
    go_on.release()
    assert run_in(other, len, ran, patience=PATIENCE) == 0


def test_a_job_that_runs_in_no_greenlet_can_be_abandoned():
    job = bridge.Job(int, ())
    job.abandon()
    assert not job.done
