"""Calls and casts from native threads other than the client's: what comes back, and what is left behind."""

from __future__ import annotations

import gevent
import pytest
from faces import PATIENCE, Gate, Lab, Notes, until
from gevent.hub import get_hub
from gevent.monkey import get_original
from otp.kernel import Native
from support import MS

import erps_gevent as erps
from erps_gevent.foreign import ForeignCall
from erps_gevent.otp.bridge import Job

_native_sleep = get_original("time", "sleep")


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def note():
    return Notes()


@pytest.fixture
def client(plain_house, gate, note):
    """One whose line is up, in the hub of the test; a thread of the test's is a foreign one."""
    acts = {"gate": gate, "refuse": refuse}
    made = plain_house.client(plain_house.daemon(Lab, acts, note))
    made.wait_connected(PATIENCE)
    return made


def refuse(server, from_):
    raise erps.ErrorReply("no", "not today")


@pytest.fixture
def no_greenlets(monkeypatch):
    """Whatever would begin a greenlet for another thread fails."""

    def refuse(job):
        raise AssertionError(f"{job.function} has to be run in a greenlet")

    monkeypatch.setattr(Job, "start", refuse)


def test_a_call_on_a_line_that_is_up_begins_no_greenlet(client, no_greenlets):
    assert Native(client.call, ("echo", [1, 2])).result() == [1, 2]


def test_a_cast_on_a_line_that_is_up_begins_no_greenlet(client, note, no_greenlets):
    assert Native(client.cast, "hello").result() is None
    assert note.wait("cast") == ["hello"]


def test_what_the_handler_refuses_is_raised_in_the_thread(client, no_greenlets):
    with pytest.raises(erps.ErrorReply, match="not today") as caught:
        Native(client.call, ("refuse",)).result()
    assert caught.value.kind == "no"


@pytest.mark.parametrize("use", ["call", "cast"])
def test_what_cannot_be_sent_is_raised_in_the_thread(client, use, no_greenlets):
    with pytest.raises(erps.EncodeError, match="request"):
        Native(getattr(client, use), object()).result()


def test_the_deadline_is_the_lines_own(client, gate, no_greenlets):
    with pytest.raises(erps.CallTimeout, match="no answer in") as caught:
        Native(client.call, ("gate",), 500 * MS).result()
    assert caught.value.sent is True
    assert caught.value.request == ("gate",)
    assert client.stats["pending"] == 0
    gate.open()
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


def test_a_call_without_a_timeout_waits_for_its_answer(client, gate, no_greenlets):
    thread = Native(client.call, ("gate",), None)
    gate.entered.wait(PATIENCE)
    assert client.stats["pending"] == 1
    gate.open()
    thread.result()


def test_too_many_calls_are_refused_in_the_thread(plain_house, gate):
    client = plain_house.client(plain_house.daemon(Lab, {"gate": gate}), max_pending=1)
    client.wait_connected(PATIENCE)
    first = Native(client.call, ("gate",), PATIENCE)
    gate.entered.wait(PATIENCE)
    with pytest.raises(erps.Overloaded, match="max_pending") as caught:
        Native(client.call, ("echo", 1)).result()
    assert caught.value.request == ("echo", 1)
    gate.open()
    first.result()


@pytest.mark.parametrize("use", ["call", "cast"])
def test_a_client_that_is_not_up_is_brought_up_first(plain_house, note, use):
    client = plain_house.client(plain_house.daemon(Lab, {}, note))
    client.wait_connected(PATIENCE)
    client.disconnect()
    client.connect()
    Native(getattr(client, use), ("echo", 1), PATIENCE, True).result()
    assert client.stats["connects"] == 2


@pytest.mark.parametrize("use", ["call", "cast"])
def test_a_client_that_has_not_begun_begins(plain_house, use):
    client = plain_house.client(plain_house.daemon(), hub="thread")
    Native(getattr(client, use), ("echo", 1), PATIENCE).result()
    assert client.info()["hub"] == "thread"


def test_a_hub_that_something_blocks_holds_nobody_and_sends_nothing_later(client, note):
    failed = []

    def ask():
        try:
            client.cast("too late", 5 * MS)
        except erps.CallTimeout as error:
            failed.append(error)

    thread = Native(ask)
    for _ in range(2000):
        if failed:
            break
        _native_sleep(5 * MS)  # which turns no hub
    thread.result()
    assert failed[0].sent is False
    client.call(("echo", 1), timeout=PATIENCE)
    assert note.of("cast") == []


def test_a_job_that_the_hub_comes_to_after_its_deadline_sends_nothing(client):
    healer = client._lifeline.healer
    call = ForeignCall(healer, client._lifeline._call, ("echo", 1), 0.0, False)
    woken = []
    call.wake = lambda: woken.append(1)
    call.begin()
    assert woken == [1]
    with pytest.raises(erps.CallTimeout, match="too late") as caught:
        call.outcome()
    assert caught.value.sent is False
    assert client.stats["pending"] == 0


def test_an_interrupted_call_is_forgotten(plain_house, gate):
    """A greenlet of this thread calls by the hub thread."""
    client = plain_house.client(plain_house.daemon(Lab, {"gate": gate}), hub="thread")
    client.wait_connected(PATIENCE)
    calling = gevent.spawn(client.call, ("gate",), timeout=None)
    gate.entered.wait(PATIENCE)
    until(lambda: client.stats["pending"] == 1)
    calling.kill()
    until(lambda: client.stats["pending"] == 0)
    gate.open()
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["connects"] == 1


def test_a_lost_line_fails_the_calls_of_threads(client, gate):
    thread = Native(client.call, ("gate",), None)
    gate.entered.wait(PATIENCE)
    client.disconnect()
    with pytest.raises(erps.Disconnected) as caught:
        thread.result()
    assert caught.value.sent is True
    assert caught.value.request == ("gate",)
    gate.open()


def test_a_full_outbox_is_waited_for_in_a_greenlet(client, monkeypatch):
    begun = []
    start = Job.start
    monkeypatch.setattr(Job, "start", lambda job: (begun.append(job), start(job)))
    monkeypatch.setattr("erps_gevent.foreign.HIGH_WATER", -1)
    assert Native(client.call, ("echo", 1), PATIENCE).result() == 1
    assert len(begun) == 1
    assert get_hub() is client._lifeline.hub
