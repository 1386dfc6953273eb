"""The mailbox of a process, and its turn of the hub."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest
from otp.kernel import PATIENCE
from support import MS

from erps_gevent.otp import inbox as module
from erps_gevent.otp.inbox import TURN_EVENTS, Inbox


@pytest.fixture
def inbox():
    return Inbox()


def test_messages_come_out_in_the_order_of_arrival(inbox):
    for n in range(5):
        inbox.put(n)
    assert [inbox.next() for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seconds", [None, 10.0])
def test_next_parks_until_a_message_comes(inbox, seconds):
    gevent.spawn(inbox.put, "late")
    assert inbox.next(None if seconds is None else monotonic() + seconds) == "late"
    assert inbox.parked is None


def test_next_gives_up_at_the_deadline(inbox):
    begun = monotonic()
    assert inbox.next(begun + 3 * MS) is None
    assert monotonic() >= begun + 3 * MS


def test_a_deadline_in_the_past_takes_what_is_there_and_does_not_wait(inbox):
    assert inbox.next(monotonic() - 1) is None
    inbox.put("there")
    assert inbox.next(monotonic() - 1) == "there"


def test_a_wake_without_a_message_lets_next_look_again_and_wait_on(inbox):
    gevent.spawn(inbox.wake)
    gevent.spawn_later(2 * MS, inbox.put, "then")
    assert inbox.next() == "then"
    gevent.spawn(inbox.wake)
    assert inbox.next(monotonic() + 3 * MS) is None


def test_waking_an_inbox_that_is_not_parked_does_nothing(inbox):
    inbox.wake()
    assert inbox.next(monotonic() - 1) is None


def test_two_messages_in_one_turn_wake_once(inbox):
    reader = gevent.spawn(lambda: [inbox.next(), inbox.next()])
    gevent.sleep(0)
    inbox.put(1)
    inbox.put(2)
    assert reader.get() == [1, 2]


def test_a_closed_inbox_has_dropped_what_was_queued(inbox):
    inbox.put("lost")
    inbox.close()
    assert inbox.next(monotonic() - 1) is None


def test_a_process_that_always_has_something_to_do_lets_the_others_run(inbox):
    """The BEAM preempts; here a reader with a full mailbox yields after a bounded number of events."""
    others = []
    gevent.spawn(others.append, "ran")
    for n in range(2 * TURN_EVENTS):
        inbox.put(n)
    taken = []
    while not others:
        taken.append(inbox.next())
    assert taken == list(range(len(taken)))
    assert len(taken) <= TURN_EVENTS + 1


def test_slow_events_yield_sooner(monkeypatch):
    monkeypatch.setattr(module, "TURN_SECONDS", 0.0)
    inbox = Inbox()
    others = []
    gevent.spawn(others.append, "ran")
    for _ in range(3):
        inbox.put(1)
        inbox.next()
    assert others == ["ran"]


def test_a_reader_that_was_parked_begins_a_new_turn(inbox, monkeypatch):
    monkeypatch.setattr(module, "TURN_SECONDS", PATIENCE)
    for _ in range(TURN_EVENTS):
        inbox.put(1)
        inbox.next()
    gevent.spawn(inbox.put, "late")
    inbox.next()
    others = []
    gevent.spawn(others.append, "ran")
    for _ in range(TURN_EVENTS // 2):
        inbox.put(1)
        inbox.next()
    assert others == []


# Selective receive.


def test_select_takes_the_first_that_matches_and_leaves_the_rest_in_order(inbox):
    for n in range(5):
        inbox.put(n)
    assert inbox.select(lambda n: n % 2) == 1
    assert inbox.select(lambda n: n > 1, monotonic() - 1) == 2
    assert list(inbox.mailbox) == [0, 3, 4]


def test_select_waits_for_what_it_wants_and_gives_up_at_the_deadline(inbox):
    inbox.put("unwanted")
    gevent.spawn(inbox.put, "wanted")
    assert inbox.select(lambda message: message == "wanted") == "wanted"
    assert inbox.select(lambda message: message == "wanted", monotonic() + 2 * MS) is None
    assert list(inbox.mailbox) == ["unwanted"]


def test_a_message_that_comes_while_select_looks_is_seen_too(inbox):
    inbox.put(1)
    inbox.put(2)

    def match(message):
        if message < 3:
            inbox.put(message + 2)
        return message == 4

    assert inbox.select(match, monotonic() + 10) == 4
    assert list(inbox.mailbox) == [1, 2, 3]


def test_select_of_anything_takes_the_oldest(inbox):
    gevent.spawn(inbox.put, 1)
    assert inbox.select(None) == 1
    inbox.put(2)
    inbox.put(3)
    assert inbox.select(None) == 2


def test_a_retired_inbox_wakes_nobody_and_keeps_nothing(inbox):
    inbox.put("before")
    inbox.retire()
    waiting = gevent.spawn(inbox.next)
    gevent.sleep(0)
    inbox.retire()
    inbox.put("after")
    gevent.sleep(0)
    gevent.sleep(0)
    assert not waiting.ready()
    assert list(inbox.mailbox) == ["after"]
    waiting.kill()


def test_the_time_after_a_turn_is_that_after_the_others_had_theirs(inbox):
    ended = []
    gevent.spawn(lambda: ended.append(monotonic()))
    inbox.served = TURN_EVENTS
    assert inbox.take_turn() >= ended[0]
