"""One frame at a time, and the next when the peer has had time to read it, or has answered it."""

from __future__ import annotations

import os
from time import monotonic

import gevent
import pytest
from ends import MEBIBYTE, block, dialled, got, in_time, pair, soon, turn
from faces import KINDS, PATIENCE, until, wire
from gevent.hub import get_hub
from support import MS

from erps_gevent.errors import CallTimeout, Disconnected
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.pacing import FRAME_SIZE, UNANSWERED, PacedOutbox
from erps_gevent.wire.etf_session import EtfClientSession
from erps_gevent.wire.packet import Stamp

SESSION = EtfClientSession(Stamp((0, 0, 0), ""))
CASTS = [SESSION.cast(n) for n in range(5)]
CALL = SESSION.call("x", None)[1]
PACING = 20 * MS
NEVER = 60.0  # seconds: as pacing, a gate that does not open by itself while a test lasts


class Timed(PacedOutbox):
    """Notes when it begins to send something, and whether anything was left of it when the gate began to wait."""

    def __init__(self, *args):
        super().__init__(*args)
        self.times = []
        self.left = []

    def _close_gate(self):
        before = self._gate
        super()._close_gate()
        if self._gate is not before:
            self.left.append(bool(self._sealed or self._begun))

    def _send(self, data):
        self.times.append(monotonic())
        super()._send(data)


class Line:
    """A paced outbox, the stream it writes, the other end, and the errors it has told."""

    def __init__(self, pacing, streams=None):
        self.stream, self.far = streams or pair()
        self.failures = []
        self.outbox = Timed(get_hub(), self.stream, PATIENCE, self.failures.append, pacing)

    @property
    def sent(self):
        return self.stream.sends


@pytest.fixture
def lines():
    made = []

    def make(pacing=NEVER, **kwargs):
        made.append(Line(pacing, **kwargs))
        return made[-1]

    yield make
    for line in made:
        line.outbox.close(Disconnected("the test is over"))
        line.stream.close()
        line.far.close()


@pytest.fixture
def line(lines):
    return lines()


def test_the_first_frame_leaves_at_once_and_the_next_waits(line):
    for frame in CASTS:
        line.outbox.write(frame)
    turn(3)
    assert line.sent == CASTS[:1]
    assert line.outbox.size == sum(map(len, CASTS[1:])) + 4 * FRAME_SIZE


def test_frames_leave_singly_and_no_sooner_than_the_pacing(lines):
    line = lines(PACING)
    for frame in CASTS:
        line.outbox.write(frame)
    until(lambda: not line.outbox.size)
    assert line.sent == CASTS
    gaps = [after - before for before, after in zip(line.outbox.times, line.outbox.times[1:], strict=False)]
    assert min(gaps) >= PACING - 1 * MS, gaps


def test_a_frame_after_a_pause_leaves_at_once(lines):
    line = lines(PACING)
    line.outbox.write(CASTS[0])
    until(lambda: line.outbox._gate is None)
    line.outbox.write(CASTS[1])
    assert line.sent == CASTS[:2]


def test_a_call_keeps_the_gate_for_longer(lines):
    line = lines(PACING / UNANSWERED)
    line.outbox.write(CALL)
    line.outbox.write(CASTS[0])
    until(lambda: len(line.sent) == 2)
    assert line.outbox.times[-1] - line.outbox.times[0] >= PACING - 1 * MS


def test_the_answer_to_a_call_opens_the_gate(line):
    entry = line.outbox.write(CALL)
    line.outbox.write(CASTS[0])
    line.outbox.answered(entry)
    assert line.sent == [CALL, CASTS[0]]


def test_an_answer_to_what_was_not_sent_last_says_nothing(line):
    first, second = line.outbox.write(CALL), line.outbox.write(CALL)
    line.outbox.write(CASTS[0])
    line.outbox.answered(None)
    line.outbox.answered(second)
    assert line.sent == [CALL]
    line.outbox.answered(first)
    line.outbox.answered(first)
    assert line.sent == [CALL, CALL]
    line.outbox.answered(second)
    line.outbox.answered(second)
    assert line.sent == [CALL, CALL, CASTS[0]]


def test_without_pacing_frames_leave_singly_and_at_once(lines):
    line = lines(0)
    for frame in CASTS:
        line.outbox.write(frame)
    assert line.sent == CASTS
    assert line.outbox.size == 0


def test_what_the_dialect_has_no_packet_for_is_not_sent(line):
    assert line.outbox.write(b"") == [b""]
    line.outbox.write(CASTS[0])
    assert line.sent == CASTS[:1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_frame_arrives_whole_and_the_gate_counts_from_its_end(lines, certs, kind):
    line = lines(PACING, streams=dialled(wire(kind, certs)))
    big = os.urandom(12 * MEBIBYTE)  # more than the kernel holds
    line.outbox.write(big)
    line.outbox.write(CASTS[0])
    assert line.outbox.left == [], "it has not left yet"
    assert got(line.far, len(big) + len(CASTS[0])) == big + CASTS[0]
    assert line.outbox.left == [False, False]
    turn()
    assert line.outbox.size == 0


def test_the_gate_counts_from_when_the_frame_left_however_long_the_turn_has_been(lines):
    line = lines(PACING)
    block(2 * PACING)
    for frame in CASTS[:2]:
        line.outbox.write(frame)
    until(lambda: len(line.sent) == 2)
    assert line.outbox.times[1] - line.outbox.times[0] >= PACING - 1 * MS


def test_what_was_corked_is_paced_too(lines):
    line = lines(PACING)
    line.outbox.corked = True
    for frame in CASTS:
        line.outbox.write(frame)
    assert line.sent == []
    line.outbox.uncork(b"")
    assert line.sent == CASTS[:1]
    until(lambda: line.sent == CASTS)


def test_a_frame_that_waits_can_be_taken_back_and_one_that_left_cannot(line):
    entries = [line.outbox.write(frame) for frame in CASTS]
    assert not line.outbox.take_back(entries[0])
    assert line.outbox.take_back(entries[1])
    assert line.outbox.take_back(entries[2])
    assert line.outbox.size == len(CASTS[3]) + len(CASTS[4]) + 2 * FRAME_SIZE
    line.outbox._open_gate()
    assert line.sent == [CASTS[0], CASTS[3]]
    assert line.outbox.take_back(entries[4])
    assert line.outbox.size == 0


def test_a_frame_that_was_taken_back_between_others_is_passed_over(line):
    entries = [line.outbox.write(frame) for frame in CASTS]
    assert line.outbox.take_back(entries[2])
    line.outbox._open_gate()
    line.outbox._open_gate()
    assert line.sent == [CASTS[0], CASTS[1], CASTS[3]]


def test_a_line_is_full_when_what_waits_would_take_seconds(line):
    while line.outbox.size <= HIGH_WATER:
        line.outbox.write(CASTS[0])
    assert len(line.outbox._queue) == 64
    with pytest.raises(CallTimeout, match="no room to send in time"):
        line.outbox.wait_for_room(monotonic())


def test_who_waits_for_room_is_told_as_frames_leave(lines):
    line = lines(PACING)
    while line.outbox.size <= HIGH_WATER:
        line.outbox.write(CASTS[0])
    with in_time():
        line.outbox.wait_for_room(soon())
    assert line.outbox.size <= HIGH_WATER


def test_a_closed_outbox_sends_nothing_more(lines):
    line = lines(PACING)
    for frame in CASTS:
        line.outbox.write(frame)
    line.outbox.close(Disconnected("lost"))
    assert line.outbox.size == 0
    gevent.sleep(2 * PACING)
    assert line.sent == CASTS[:1]
    with pytest.raises(Disconnected, match="the line is down: lost") as caught:
        line.outbox.write(CASTS[0])
    assert isinstance(caught.value.__cause__, Disconnected)


def test_an_outbox_that_failed_keeps_no_gate(lines):
    line = lines(PACING)
    line.stream.close()
    line.outbox.write(CASTS[0])
    assert len(line.failures) == 1
    assert line.outbox._gate is None
