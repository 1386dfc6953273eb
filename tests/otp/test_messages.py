"""Answers of callbacks, reply addresses and events."""

from __future__ import annotations

import copy
from time import monotonic

import gevent
import pytest
from gevent.hub import get_hub
from otp.kernel import Native
from support import MS

from erps_gevent.errors import ConfigError, ErrorReply, NoProc
from erps_gevent.otp.messages import (
    Call,
    Cast,
    Continue,
    Continuing,
    Event,
    From,
    IdleTimeout,
    Ignore,
    Info,
    LocalFrom,
    NoReply,
    Ok,
    Reply,
    Stop,
    StopRequest,
    is_remote,
    reply,
)
from erps_gevent.otp.waiting import answer
from erps_gevent.otp.words import NORMAL


@pytest.fixture
def from_():
    return LocalFrom(get_hub(), None)


def answered(from_):
    return answer(from_.waiter, 10.0)


@pytest.mark.parametrize(
    "given", [Reply(1), NoReply(), Stop("why"), Ok(), Ignore(), Continue(1), IdleTimeout(0)], ids=repr
)
def test_answers_are_frozen_and_compare_by_value(given):
    assert copy.copy(given) == given
    with pytest.raises((AttributeError, TypeError)):
        given.value = 2


@pytest.mark.parametrize("seconds", [-1, "5", None, True, float("nan"), float("inf")])
def test_an_idle_timeout_of_no_such_time_is_refused_where_it_is_written(seconds):
    with pytest.raises(ConfigError, match=r"IdleTimeout: seconds is a number of at least 0, not ") as caught:
        IdleTimeout(seconds)
    assert repr(seconds) in str(caught.value)


@pytest.mark.parametrize("answer_", [Continue, IdleTimeout, Reply, Stop])
def test_an_answer_without_its_argument_is_refused(answer_):
    with pytest.raises(TypeError):
        answer_()


def test_the_first_reply_counts_and_later_ones_are_dropped(from_):
    """Rules 1.2 and 2.8: every From is one-shot."""
    from_.reply("first")
    from_.reply("second")
    from_.fail(ErrorReply("third"))
    assert answered(from_) == "first"
    assert from_.done


def test_a_failure_is_raised_in_the_caller_as_an_error_of_its_own(from_):
    """The traceback of the one who raised it would hold its frames, and grow with each caller."""
    refusal = ErrorReply("busy", "later", {"after": 3})
    from_.fail(refusal)
    with pytest.raises(ErrorReply) as caught:
        answered(from_)
    assert caught.value is not refusal
    assert vars(caught.value) == vars(refusal)
    assert refusal.__traceback__ is None


@pytest.mark.parametrize("error", [ValueError("x"), NoProc("x"), "busy", ErrorReply])
def test_only_an_error_reply_is_a_failure(from_, error):
    with pytest.raises(ConfigError, match="takes an ErrorReply, not"):
        from_.fail(error)
    assert not from_.done


def test_that_nobody_will_answer_is_told_once(from_):
    from_.exited(NoProc("gone"))
    from_.reply("late")
    with pytest.raises(NoProc):
        answered(from_)


def test_a_reply_may_come_from_another_native_thread(from_):
    thread = Native(from_.reply, "from afar")
    assert answered(from_) == "from afar"
    thread.result()


def test_a_failure_may_come_from_another_native_thread(from_):
    thread = Native(from_.fail, ErrorReply("busy"))
    with pytest.raises(ErrorReply):
        answered(from_)
    thread.result()


def test_the_functions_do_what_the_methods_do(from_):
    reply(from_, 7)
    assert answered(from_) == 7
    assert is_remote(from_) is False


def test_remaining_counts_down_to_nothing():
    from_ = LocalFrom(get_hub(), monotonic() + 5.0)
    assert 4.0 < from_.remaining() <= 5.0
    from_.deadline = monotonic() - 1
    assert from_.remaining() == 0.0


def test_remaining_is_none_for_a_caller_that_waits_for_ever_and_nothing_once_it_has_its_answer(from_):
    assert from_.remaining() is None
    from_.reply(1)
    assert from_.remaining() == 0.0


def test_a_reply_address_tells_who_calls():
    assert repr(LocalFrom(get_hub(), None, "<Pid 7 Shop>")) == "<From <Pid 7 Shop>>"
    assert repr(LocalFrom(get_hub(), None)) == "<From a greenlet that is no process>"


class Recorder:
    """Every callback returns its name and its arguments."""

    def __getattr__(self, name):
        return lambda *args: (name, *args)


@pytest.mark.parametrize(
    ("event", "callback", "text"),
    [
        (Call("ask", "from"), ("handle_call", "ask", "from"), "call 'ask'"),
        (Cast("tell"), ("handle_cast", "tell"), "cast 'tell'"),
        (Continuing("on"), ("handle_continue", "on"), "continue 'on'"),
        (Info(None), ("handle_info", None), "None"),
        (StopRequest(NORMAL), Stop(NORMAL), "stop normal"),
    ],
)
def test_an_event_runs_its_callback_and_prints_for_the_log(event, callback, text):
    assert event.deliver(Recorder()) == callback
    assert repr(event) == text


def test_a_large_request_is_cut_in_the_log():
    assert len(repr(Call(b"x" * 1_000_000, None))) < 1000


@pytest.mark.parametrize(
    "act",
    [lambda: Event().deliver(None), lambda: From(get_hub(), None)._reply(1), lambda: From(get_hub(), None)._fail(1)],
)
def test_what_a_subclass_must_do_says_so(act):
    with pytest.raises(NotImplementedError):
        act()


def test_a_waiting_caller_has_its_reply_in_the_same_turn(from_):
    gevent.spawn(from_.reply, 1)
    assert answer(from_.waiter, 100 * MS) == 1
