"""Send, receive, timers and addresses for one reply."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from gevent.hub import get_hub
from otp.kernel import PATIENCE, Native, Probe, as_process, ended, idle, settle
from otp.kernel import spawn as process_of
from support import MS, run_python

from erps_gevent.errors import CallExit, CallTimeout, ConfigError, NoProc
from erps_gevent.otp.gen import stop
from erps_gevent.otp.mailbox import (
    alias,
    cancel_timer,
    read_timer,
    receive,
    send,
    send_after,
    unalias,
)
from erps_gevent.otp.primitives import current, kill, register, spawn
from erps_gevent.otp.words import NORMAL


@pytest.fixture
def idler():
    process = process_of(idle)
    yield process
    kill(process.pid)
    ended(process)


# Sending and receiving.


def test_messages_of_one_sender_come_in_order_whatever_they_are():
    def main(me):
        for message in (1, None, False, "text"):
            send(me.pid, message)
        return [receive() for _ in range(4)]

    assert as_process(main) == [1, None, False, "text"]


def test_receive_parks_until_a_message_comes():
    def main(me):
        spawn(send, me.pid, "late")
        return receive()

    assert as_process(main) == "late"


@pytest.mark.parametrize("match", [str, (str, bytes), lambda message: message == "b"])
def test_receive_takes_the_oldest_that_matches_and_leaves_the_others(match):
    def main(me):
        for message in (1, None, "b", 2, "c"):
            send(me.pid, message)
        return receive(match), [receive() for _ in range(4)]

    assert as_process(main) == ("b", [1, None, 2, "c"])


def test_receive_sees_each_message_once_while_it_waits():
    seen = []

    def main(me):
        send(me.pid, 1)
        spawn(lambda: [send(me.pid, n) for n in (2, 3)])
        return receive(lambda message: seen.append(message) or message == 3)

    assert as_process(main) == 3
    assert seen == [1, 2, 3]


def test_a_match_that_raises_leaves_the_message_where_it_is():
    def main(me):
        send(me.pid, 0)
        with pytest.raises(ZeroDivisionError):
            receive(lambda message: 1 / message)
        return receive(timeout=0)

    assert as_process(main) == 0


def test_receive_gives_up_in_time():
    def main(me):
        send(me.pid, "unwanted")
        with pytest.raises(CallTimeout, match=r"no message that matches came in 0\.002 s") as caught:
            receive(int, timeout=2 * MS)
        assert caught.value.reason == "timeout"
        with pytest.raises(CallTimeout):
            receive(int, timeout=0)
        return receive(timeout=0)

    assert as_process(main) == "unwanted"


@pytest.mark.parametrize("timeout", [-1, "soon", True])
def test_a_bad_timeout_is_an_argument_error(timeout):
    with pytest.raises(ConfigError, match="timeout is a number"):
        receive(timeout=timeout)


def test_a_match_is_a_class_or_a_function():
    with pytest.raises(TypeError, match="class, a tuple of classes or a function of a message, not 'text'"):
        receive("text")


def test_a_process_without_callbacks_that_is_stopped_ends_where_it_looks_for_messages():
    pid = spawn(receive, int)
    stop(pid, "why", timeout=PATIENCE)
    assert not pid.is_alive()


def test_a_gen_server_may_receive_in_a_callback_and_its_calls_wait():
    """Rules 1.6: what it does not ask for stays in its mailbox."""
    server = Probe.start()

    def asks(_server, from_):
        send(current(), "for the callback")
        from_.reply(receive(str, timeout=PATIENCE))

    server.cast(lambda _: None)
    caller = gevent.spawn(server.call, "waits")
    got = server.call(lambda probe, from_: asks(probe, from_) or probe.defer(from_, lambda: None))
    assert got == "for the callback"
    assert caller.get(timeout=PATIENCE) == "waits"
    stop(server)


def test_send_takes_a_pid_a_name_or_what_has_a_process_and_a_dead_one_drops_the_message(idler):
    class Handle:
        pid = idler.pid
        call = cast = None

    register(idler.pid, "idler")
    send(idler.pid, 1)
    send("idler", 2)
    send(Handle(), 3)
    assert list(idler.inbox.mailbox) == [1, 2, 3]
    kill(idler.pid)
    ended(idler)
    send(idler.pid, 4)
    with pytest.raises(NoProc, match="no process 'idler'"):
        send("idler", 5)


def test_any_thread_may_send(idler):
    Native(send, idler.pid, "hello").result()
    gevent.sleep(0)
    assert list(idler.inbox.mailbox) == ["hello"]


def test_a_wait_in_main_that_nothing_can_end_says_so():
    """Rules 17: gevent's LoopExit."""

    def waits():
        get_hub()
        with pytest.raises(CallExit, match="will never answer: this thread has no greenlet") as caught:
            receive()
        return caught.value.reason

    assert Native(waits).result() == "deadlock"


# Timers.


def test_send_after_cancel(idler):
    """Case 93, EPr "send_after/3 returns a timer reference...": delivery, remaining time, cancel, again after it."""

    def main(me):
        late = send_after(me.pid, "never", 60.0)
        soon = send_after(me.pid, "soon", 2 * MS)
        assert "Timer for" in repr(late)
        got = receive()
        assert cancel_timer(soon) is False
        assert read_timer(soon) is False
        assert 59.0 < read_timer(late) < 60.0
        assert 59.0 < cancel_timer(late) < 60.0
        assert cancel_timer(late) is False
        return got, list(me.inbox.mailbox)

    assert as_process(main) == ("soon", [])


def test_a_timer_of_no_time_fires_at_the_next_turn():
    def main(me):
        send_after(me.pid, "now", 0)
        return receive(timeout=PATIENCE)

    assert as_process(main) == "now"


def test_a_timer_looks_its_name_up_when_it_fires(idler):
    def main(_):
        register(current(), "later")
        send_after("later", "named", MS)
        return receive(timeout=PATIENCE)

    assert as_process(main) == "named"


def test_a_timer_for_a_name_that_nobody_has_any_more_is_dropped():
    fired = Event()
    timer = send_after("nobody", "message", 0)
    get_hub().loop.run_callback(fired.set)
    send_after(current(), "after", MS)
    assert receive(timeout=PATIENCE) == "after"
    assert read_timer(timer) is False


@pytest.mark.parametrize("seconds", [-1, None, "soon"])
def test_a_bad_delay_is_an_argument_error(seconds):
    with pytest.raises(ConfigError, match="seconds is a number"):
        send_after("name", "message", seconds)


def test_a_timer_for_an_alias_that_was_taken_back_is_dropped():
    def main(me):
        address = alias()
        unalias(address)
        send_after(address, "dropped", MS)
        send_after(me.pid, "after", 2 * MS)
        return receive(timeout=PATIENCE), list(me.inbox.mailbox)

    assert as_process(main) == ("after", [])


@pytest.mark.parametrize("target", [123, "", b"name", object(), Probe])
def test_what_is_no_target_is_an_argument_error_at_once(target):
    text = "takes a Pid, a name, a Via, an Alias or a Client, not"
    with pytest.raises(TypeError, match=f"send {text}"):
        send(target, "message")
    with pytest.raises(TypeError, match=f"send_after {text}"):
        send_after(target, "message", MS)


def test_a_timer_for_nobody_is_an_argument_error_at_once():
    with pytest.raises(TypeError, match=r"send_after takes a Pid, .* not None"):
        send_after(None, "message", MS)


def test_a_timer_of_a_native_thread_runs_in_the_hub_of_its_target():
    def main(me):
        addresses = (me.pid, alias())
        for address in addresses:
            Native(send_after, address, "late", MS).result()
        return [receive(timeout=PATIENCE) for _ in addresses]

    assert as_process(main) == ["late", "late"]


def test_a_timer_of_a_native_thread_can_be_read_and_cancelled_there(idler):
    def elsewhere():
        timer = send_after(idler.pid, "never", 60.0)
        return read_timer(timer), cancel_timer(timer), read_timer(timer), cancel_timer(timer), timer

    read, cancelled, *again, timer = Native(elsewhere).result()
    assert 59.0 < cancelled <= read <= 60.0
    assert again == [False, False]
    settle()
    assert timer.watcher is None


def test_the_main_thread_may_begin_with_a_timer_for_a_name():
    program = "import erps_gevent as erps; erps.send_after('later', 1, 0.001); erps.register(erps.current(), 'later')"
    done = run_python("-c", f"{program}; print(erps.receive())")
    assert done.stdout == "1\n", done.stderr


def test_a_name_in_a_thread_without_a_hub_has_no_timer_and_says_so():
    with pytest.raises(ConfigError) as caught:
        Native(send_after, "name", "message", MS).result()
    assert str(caught.value) == (
        "send_after('name'): this thread runs no hub, where a timer for a name would wait; give the Pid, whose own does"
    )


# Aliases.


def test_alias_once():
    """Case 94, EPr "with :reply option when aliasing"."""

    def main(me):
        address = alias("reply")
        spawn(lambda: (send(address, "first"), send(address, "second"), send(me.pid, "end")))
        return [receive(), receive()], unalias(address)

    assert as_process(main) == (["first", "end"], False)


def test_an_alias_holds_until_it_is_taken_back():
    def main(me):
        address = alias()
        send(address, 1)
        send(address, 2)
        taken = unalias(address), unalias(address)
        send(address, 3)
        return list(me.inbox.mailbox), taken

    assert as_process(main) == ([1, 2], (True, False))


def test_an_alias_is_one_of_two_kinds():
    with pytest.raises(ConfigError, match="'explicit_unalias', 'reply', not 'twice'"):
        alias("twice")


def test_stop_without_a_reason_is_normal():
    pid = spawn(receive)
    ends = []
    pid.process.monitor(ends.append)
    stop(pid)
    assert ends == [NORMAL]
