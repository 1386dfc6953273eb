"""What is noted of a process that is watched."""

from __future__ import annotations

import logging

import gevent
import pytest
from otp.kernel import Probe, as_process, ended, settle

from erps_gevent.errors import ErrorReply, ServerExit
from erps_gevent.otp import sys
from erps_gevent.otp.messages import Continue, IdleTimeout, NoReply, Reply, Stop
from erps_gevent.otp.primitives import exit_
from erps_gevent.otp.words import KILL, NORMAL, TIMEOUT


def raise_(error):
    raise error


@pytest.fixture
def server():
    pid = Probe.start()
    yield pid
    exit_(pid, KILL)
    ended(pid)


@pytest.fixture
def seen(server):
    """The events of the server, as it is told of them."""
    events = []
    sys.trace(server, lambda _, event: events.append(event))
    return events


def swallow(server, request):
    with pytest.raises((ErrorReply, ServerExit)):
        server.call(request)


CALLS = {
    "reply": (lambda *_: Reply("yes"), "yes"),
    "refusal": (lambda *_: raise_(ErrorReply("no")), ErrorReply),
    "stop with a reply": (lambda *_: Stop(NORMAL, reply="bye"), "bye"),
}


@pytest.mark.parametrize("how", CALLS)
def test_what_answers_a_call_goes_out_to_its_caller(server, seen, how):
    handler, answer = CALLS[how]
    swallow(server, handler) if how == "refusal" else server.call(handler)
    came, went = seen
    assert (came[0], came[1].request) == ("in", handler)
    assert (went[0], went[2]) == ("out", came[1].from_)
    assert went[1] == answer or isinstance(went[1], answer)


def test_no_reply_is_noted(server, seen):
    server.call(lambda _, from_: from_.reply(1) or NoReply())
    server.cast("cast")
    server.send("info")
    sys.resume(server)
    assert [event[0] for event in seen] == ["in", "noreply"] * 3
    assert seen[4] == ("in", "info")


@pytest.mark.parametrize("how", ["stop", "bad return", "crash", "refusal of a cast"])
def test_an_end_is_no_answer(server, seen, how):
    acts = {
        "stop": lambda *_: Stop(NORMAL),
        "bad return": lambda *_: 4711,
        "crash": lambda *_: 1 // 0,
        "refusal of a cast": lambda *_: raise_(ErrorReply("no")),
    }
    server.cast(acts[how]) if how == "refusal of a cast" else swallow(server, acts[how])
    gevent.sleep(0)
    gevent.sleep(0)
    assert not server.is_alive()
    assert [event[0] for event in seen] == ["in"]


def test_a_continue_is_no_message(server, seen):
    sys.statistics(server, True)
    server.call(lambda *_: Reply(1, Continue("on")))
    assert sys.statistics(server, "get")["messages_in"] == 1
    assert seen[2:] == [("continue", "on"), ("noreply",)]


def test_an_idle_timeout_comes_in(server, seen):
    server.call(lambda *_: Reply(1, IdleTimeout(0)))
    settle()
    assert ("in", TIMEOUT) in seen


def test_system_messages_are_not_noted(server, seen):
    sys.get_state(server)
    sys.suspend(server)
    sys.resume(server)
    assert seen == []


def test_statistics_count_from_when_they_were_switched_on(server):
    server.call("before")
    sys.statistics(server, True)
    first = sys.statistics(server, "get")
    assert (first["messages_in"], first["messages_out"]) == (0, 0)
    server.call("after")
    sys.statistics(server, True)
    again = sys.statistics(server, "get")
    assert (again["messages_in"], again["messages_out"]) == (1, 1)
    assert again["start_time"] == first["start_time"]
    sys.statistics(server, False)
    sys.statistics(server, True)
    assert sys.statistics(server, "get")["messages_in"] == 0


def test_a_log_that_is_made_shorter_keeps_the_newest(server):
    sys.log(server, 4)
    for n in range(4):
        server.cast(n)
    sys.log(server, 2)
    assert [event[0] for event in sys.log(server, "get")] == ["in", "noreply"]
    sys.log(server, False)
    assert sys.log(server, "get") is None


def test_a_trace_in_the_log_tells_what_came_from_whom_and_what_went_to_whom(server, caplog):
    caplog.set_level(logging.INFO, "erps_gevent")
    sys.trace(server, True)

    def caller(process):
        server.call("ask")
        return process.pid

    client = as_process(caller)
    server.cast(lambda _: NoReply(Continue("on")))
    sys.trace(server, False)
    server.call("unseen")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == [
        f"{server!r} got call 'ask' from <From {client!r}>",
        f"{server!r} sent 'ask' to <From {client!r}>",
    ]
    assert lines[2].startswith(f"{server!r} got cast <function")
    assert lines[3:] == [f"{server!r} did not reply", f"{server!r} continues with 'on'", f"{server!r} did not reply"]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


@pytest.mark.parametrize("failure", [KeyError("boom"), gevent.Timeout()], ids=repr)
def test_a_tracer_that_fails_is_reported_once_and_harms_nobody(server, failure, caplog):
    sys.trace(server, lambda *_: raise_(failure))
    assert server.call("lives") == "lives"
    assert server.call("lives on") == "lives on"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert f"{server!r}: tracing ends, the function for it failed: " in caplog.text
