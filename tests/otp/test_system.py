"""The loop's half of sys: the state of an instance, replacing it, showing it."""

from __future__ import annotations

import gc
import weakref

import gevent
import pytest
from otp.kernel import Probe, ended, settle

from erps_gevent.errors import CallExit, Exit
from erps_gevent.otp import sys
from erps_gevent.otp.gen import stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import Stop
from erps_gevent.otp.primitives import exit_
from erps_gevent.otp.system import OPERATIONS, state_of
from erps_gevent.otp.words import KILL

BOOM = KeyError("boom")


def raise_(error):
    raise error


@pytest.fixture
def server():
    pid = Probe.start([])
    yield pid
    exit_(pid, KILL)
    ended(pid)


def test_the_state_is_what_the_user_keeps_on_the_instance_and_nothing_of_ours(server):
    class Heir(Probe):
        OWN_ATTRIBUTES = Probe.OWN_ATTRIBUTES | {"ours"}

    heir = Heir()
    heir._hidden, heir.shown, heir.ours, heir._process = 1, 2, 3, server.process
    assert state_of(heir) == {"_hidden": 1, "shown": 2}


FAILURES = {
    "raises": (lambda _: raise_(BOOM), KeyError),
    "exits": (lambda _: raise_(Exit("why")), Exit),
    "gevent.Timeout": (lambda _: raise_(gevent.Timeout()), gevent.Timeout),
    "sys.exit": (lambda _: raise_(SystemExit(3)), SystemExit),
    "returns no dict": (lambda _: None, TypeError),
    "returns no names": (lambda _: {1: 2}, TypeError),
    "returns ours": (lambda state: {**state, "_process": None}, TypeError),
}


@pytest.mark.parametrize("how", FAILURES)
def test_replace_state_failure(server, how, caplog):
    """Case 76, GS replace_state: a failing function: error raised, state unchanged, alive."""
    function, cause = FAILURES[how]
    before = sys.get_state(server)
    with pytest.raises(CallExit, match="the function failed, the state is as it was") as caught:
        sys.replace_state(server, function)
    assert caught.value.reason == "callback_failed"
    assert caught.value.sent is True
    assert isinstance(caught.value.__cause__, cause)
    assert sys.get_state(server) == before
    assert server.call("lives") == "lives"
    assert caplog.records == []


def test_a_new_state_that_is_none_is_shown(server):
    with pytest.raises(CallExit, match="a dict of attributes by name, not 4711"):
        sys.replace_state(server, lambda _: 4711)
    with pytest.raises(CallExit, match="_process belongs to the library and is no part of the state"):
        sys.replace_state(server, lambda state: {**state, "_process": 1})


@pytest.mark.parametrize("name", ["pid", "trap_exit"])
def test_a_new_state_cannot_have_what_a_property_of_the_class_would_hide(server, name):
    before = sys.get_state(server)
    with pytest.raises(CallExit, match=f"{name} is a property of Probe, which would hide it; give it another name"):
        sys.replace_state(server, lambda state: {**state, name: 3})
    assert sys.get_state(server) == before


def test_a_class_may_keep_the_value_of_its_property_under_the_same_name():
    class Holder(GenServer):
        def init(self):
            vars(self)["size"] = 1

        @property
        def size(self):
            return vars(self)["size"]

    pid = Holder.start()
    assert sys.replace_state(pid, lambda state: {"size": state["size"] + 1}) == {"size": 2}
    stop(pid)


def test_a_replaced_state_keeps_the_process(server):
    assert sys.replace_state(server, lambda _: {"log": [], "new": 1}) == {"log": [], "new": 1}
    assert server.call("lives") == "lives"


class Redacting(Probe):
    def format_state(self, state):
        return self.how({name: value for name, value in state.items() if name not in ("password", "how")})

    def init(self, how):
        super().init()
        self.how, self.password = how, "secret"


BROKEN = {
    "raises": (lambda _: raise_(BOOM), "format_state failed: KeyError('boom')"),
    "exits": (lambda _: raise_(Exit("why")), "format_state failed: Exit('why')"),
    "gevent.Timeout": (lambda _: raise_(gevent.Timeout()), "format_state failed: "),
}


def test_the_hook_says_what_others_see(caplog):
    pid = Redacting.start(dict)
    assert sys.get_status(pid)["state"] == {"log": []}
    assert sys.get_state(pid)["password"] == "secret"
    pid.cast(lambda _: Stop("why"))
    ended(pid)
    assert "state: {'log': [('terminate', 'why')]}" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("how", BROKEN)
def test_format_status_crash(how, caplog):
    """Optional, GS crash_in_format_status, throw_in_format_status: neither get_status nor the report breaks."""
    function, text = BROKEN[how]
    pid = Redacting.start(function)
    assert sys.get_status(pid)["state"].startswith(text)
    pid.cast(lambda _: raise_(ValueError("the crash")))
    assert isinstance(ended(pid), ValueError)
    assert len(caplog.records) == 1
    assert text in caplog.text
    assert "secret" not in caplog.text


def test_an_exit_while_the_hook_runs_ends_the_process():
    pid = Redacting.start(lambda _: exit_(pid, "signal"))
    with pytest.raises(CallExit):
        sys.get_status(pid)
    assert not pid.is_alive()


def test_suspend_and_resume_show_in_the_status(server):
    sys.suspend(server)
    assert sys.get_status(server)["status"] == "suspended"
    sys.resume(server)
    assert sys.get_status(server)["status"] == "running"
    assert sys.get_status(server)["parent"] is None


def test_a_process_is_watched_only_while_there_is_something_to_note(server, monkeypatch):
    monkeypatch.setitem(OPERATIONS, "watched", lambda loop: loop.watch is not None)
    sys.trace(server, lambda *_: None)
    sys.log(server, 1)
    sys.trace(server, False)
    assert sys._ask(server, 5.0, "watched") is True
    sys.log(server, False)
    assert sys._ask(server, 5.0, "watched") is False


def test_a_failing_hook_keeps_no_state_alive():
    refs = []

    class Held(Probe):
        def init(self):
            refs.append(weakref.ref(self))

        def format_state(self, state):
            raise KeyError("boom")

        def handle_cast(self, request):
            return Stop("why")

        def terminate(self, reason):
            """Nothing to tidy up."""

    gc.collect()
    gc.disable()
    try:
        pid = Held.start()
        sys.get_status(pid)
        pid.cast("end")
        ended(pid)
        settle()
        assert refs[0]() is None
    finally:
        gc.enable()
