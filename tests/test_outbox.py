"""What leaves when, what can still be taken back, and what ends an outbox."""

from __future__ import annotations

import itertools
import os

import gevent
import pytest
from ends import MEBIBYTE, block, dialled, got, in_time, pair, soon, turn
from faces import KINDS, PATIENCE, wire
from gevent.hub import get_hub
from support import MS

from erps_gevent.errors import CallTimeout, Disconnected
from erps_gevent.outbox import BATCH, COPIED, HIGH_WATER, Outbox
from erps_gevent.transport.tcp import SEAL_SIZE, Stream
from erps_gevent.wire.pieces import IN_PIECES, Pieces

FRAMES = [bytes([65 + n]) * 10 for n in range(5)]


class Line:
    """An outbox, the stream it writes, the other end, and the errors it has told."""

    def __init__(self, streams: tuple[Stream, Stream], send_timeout: float) -> None:
        self.stream, self.far = streams
        self.failures: list[Exception] = []
        self.outbox = Outbox(get_hub(), self.stream, send_timeout, self.failures.append)

    def fill(self) -> bytes:
        """Write until the kernel takes no more; returns what was written."""
        frame = os.urandom(4 * MEBIBYTE)
        self.outbox.write(frame)
        turn()
        assert self.outbox.size > HIGH_WATER
        return frame


@pytest.fixture
def lines():
    made = []

    def make(streams=None, send_timeout=PATIENCE):
        made.append(Line(streams or pair(), send_timeout))
        return made[-1]

    yield make
    for line in made:
        line.outbox.close(Disconnected("the test is over"))
        line.stream.close()
        line.far.close()


@pytest.fixture
def line(lines):
    return lines()


# When it leaves.


def test_the_first_frame_of_a_turn_leaves_at_once_and_the_rest_together(line):
    for frame in FRAMES:
        line.outbox.write(frame)
    assert line.stream.sends == FRAMES[:1]
    turn()
    assert line.stream.sends == [FRAMES[0], b"".join(FRAMES[1:])]
    assert line.outbox.size == 0


def test_the_next_turn_begins_anew(line):
    for frame in FRAMES:
        line.outbox.write(frame)
        turn()
    assert line.stream.sends == FRAMES


def test_a_batch_is_bounded(line):
    reader = gevent.spawn(got, line.far, 5 + 3 * BATCH)
    line.outbox.write(b"first")
    for _ in range(6):
        line.outbox.write(bytes(BATCH // 2))
    reader.get(timeout=PATIENCE)
    assert line.stream.seals == [5, BATCH, BATCH, BATCH]


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_larger_than_every_buffer_arrives_whole_and_in_its_place(lines, certs, kind):
    line = lines(dialled(wire(kind, certs)))
    big = os.urandom(3 * MEBIBYTE + 17)
    sent = [b"before", big, b"between", big[::-1], b"after"]
    for frame in sent:
        line.outbox.write(frame)
    assert got(line.far, sum(map(len, sent))) == b"".join(sent)
    turn()
    assert line.outbox.size == 0


def test_what_is_sealed_at_a_time_is_bounded(line):
    reader = gevent.spawn(got, line.far, 4 * MEBIBYTE)
    line.outbox.write(bytes(4 * MEBIBYTE))
    assert len(reader.get(timeout=PATIENCE)) == 4 * MEBIBYTE
    assert max(line.stream.seals) == SEAL_SIZE


def in_pieces(size: int) -> Pieces:
    return Pieces((b"head", os.urandom(size), b"tail"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [IN_PIECES, COPIED - 8, COPIED - 7, 3 * MEBIBYTE + 17])
def test_a_frame_in_pieces_arrives_whole_and_in_its_place(lines, certs, kind, size):
    line = lines(dialled(wire(kind, certs)))
    sent = [b"before", in_pieces(size), b"between", in_pieces(size), in_pieces(size), b"after"]
    for frame in sent:
        line.outbox.write(frame)
    assert got(line.far, sum(map(len, sent))) == b"".join(map(bytes, sent))
    turn()
    assert line.outbox.size == 0


def test_the_bytes_of_a_large_piece_are_not_copied(lines):
    line = lines(dialled(wire("tcp", None)))
    value = bytearray(8 * MEBIBYTE)
    line.outbox.write(Pieces((b"head", value, b"tail")))
    assert line.outbox.size
    value[4 * MEBIBYTE : 7 * MEBIBYTE] = b"x" * (3 * MEBIBYTE)
    assert got(line.far, len(value) + 8) == b"head" + value + b"tail"


def test_what_is_sealed_at_a_time_of_pieces_is_bounded(line):
    frame = in_pieces(MEBIBYTE)
    reader = gevent.spawn(got, line.far, len(frame))
    line.outbox.write(frame)
    assert reader.get(timeout=PATIENCE) == bytes(frame)
    assert max(line.stream.seals) == SEAL_SIZE


def test_a_frame_in_pieces_that_has_not_begun_can_be_taken_back(line):
    line.outbox.write(b"first")
    entry = line.outbox.write(in_pieces(MEBIBYTE))
    line.outbox.write(b"last")
    assert line.outbox.take_back(entry)
    assert got(line.far, 9) == b"firstlast"


def test_a_frame_in_pieces_is_dropped_with_the_outbox(line):
    line.outbox.write(in_pieces(8 * MEBIBYTE))
    assert line.outbox.size > HIGH_WATER
    line.outbox.close(Disconnected("over"))
    assert line.outbox.size == 0


# Signing.


@pytest.fixture
def numbered(line):
    """An outbox that puts its number before each frame."""
    numbers = itertools.count()
    line.outbox.sign = lambda frame: bytes([48 + next(numbers)]) + frame
    return line


def test_frames_are_signed_in_the_order_in_which_they_leave(numbered):
    numbered.outbox.corked = True
    for frame in FRAMES[:2]:
        numbered.outbox.write(frame)
    numbered.outbox.uncork(b"first")
    numbered.outbox.write(FRAMES[2])
    turn()
    numbered.outbox.write(FRAMES[3])
    turn()
    sent = [b"first", *FRAMES[:4]]
    assert b"".join(numbered.stream.sends) == b"".join(b"%d%s" % pair for pair in enumerate(sent))
    assert numbered.outbox.size == 0


def test_a_frame_that_was_taken_back_is_not_signed(numbered):
    entries = [numbered.outbox.write(frame) for frame in FRAMES]
    assert numbered.outbox.take_back(entries[2])
    turn()
    sent = [*FRAMES[:2], *FRAMES[3:]]
    assert b"".join(numbered.stream.sends) == b"".join(b"%d%s" % pair for pair in enumerate(sent))


def test_a_frame_that_is_sent_in_pieces_is_signed_once_and_as_a_whole(numbered):
    big = os.urandom(SEAL_SIZE * 3)
    numbered.outbox.write(big)
    numbered.outbox.write(b"after")
    assert got(numbered.far, len(big) + 7) == b"0" + big + b"1after"


# Taking back.


def test_a_queued_frame_can_be_taken_back_and_a_begun_one_cannot(line):
    begun = line.outbox.write(FRAMES[0])
    queued = line.outbox.write(FRAMES[1])
    line.outbox.write(FRAMES[2])
    assert not line.outbox.take_back(begun)
    assert line.outbox.take_back(queued)
    assert not line.outbox.take_back(queued)
    turn()
    assert got(line.far, 20) == FRAMES[0] + FRAMES[2]
    assert line.outbox.size == 0


def test_a_frame_that_waits_behind_a_begun_one_can_be_taken_back(line):
    big = line.fill()
    entry = line.outbox.write(b"never")
    line.outbox.write(b"last")
    turn()
    assert line.outbox.take_back(entry)
    assert got(line.far, len(big) + 4) == big + b"last"


def test_a_frame_that_was_sealed_with_its_batch_cannot_be_taken_back(line):
    line.outbox.write(FRAMES[0])
    entry = line.outbox.write(FRAMES[1])
    turn()
    assert not line.outbox.take_back(entry)


def test_frames_that_are_taken_back_leave_nothing_behind(line):
    line.fill()
    size = line.outbox.size
    for _ in range(100):
        entries = [line.outbox.write(frame) for frame in FRAMES]
        for entry in entries:
            assert line.outbox.take_back(entry)
    assert line.outbox.size == size
    assert not line.outbox._queue


def test_taking_back_makes_room(line):
    line.outbox.corked = True
    line.outbox.write(b"small")
    entry = line.outbox.write(bytes(2 * HIGH_WATER))
    waiting = gevent.spawn(line.outbox.wait_for_room, soon())
    turn()
    line.outbox.take_back(entry)
    with in_time():
        waiting.get()
    assert line.outbox.size == 5


# Room.


def test_room_is_there_until_it_is_not(line):
    with in_time(0.1):
        line.outbox.wait_for_room(soon())


def test_waiting_for_room_ends_with_the_deadline(line):
    line.fill()
    before = line.outbox.size
    with pytest.raises(CallTimeout, match="not reading") as caught, in_time():
        line.outbox.wait_for_room(soon() - PATIENCE + 5 * MS)
    assert caught.value.sent is False
    assert line.outbox.size == before
    assert not line.outbox._waiting


def test_a_deadline_that_has_passed_does_not_park(line):
    line.fill()
    turned = []
    gevent.spawn(turned.append, 1)
    with pytest.raises(CallTimeout):
        line.outbox.wait_for_room(0.0)
    assert turned == []


def test_room_comes_when_the_peer_reads(line):
    big = line.fill()
    waiting = [gevent.spawn(line.outbox.wait_for_room, soon()) for _ in range(3)]
    turn()
    assert got(line.far, len(big)) == big
    gevent.joinall(waiting, timeout=PATIENCE, raise_error=True)
    assert all(one.successful() for one in waiting)


def test_waiting_for_room_ends_when_the_outbox_does(line):
    line.fill()
    waiting = gevent.spawn(line.outbox.wait_for_room, None)
    turn()
    why = Disconnected("gone")
    line.outbox.close(why)
    with pytest.raises(Disconnected, match="gone") as caught:
        waiting.get(timeout=PATIENCE)
    assert caught.value.__cause__ is why
    assert caught.value.sent is False


def test_a_killed_waiter_leaves_nothing_behind(line):
    line.fill()
    waiting = gevent.spawn(line.outbox.wait_for_room, soon())
    turn()
    waiting.kill()
    assert not line.outbox._waiting


def test_telling_of_room_happens_once(line):
    told = []

    def tell():
        told.append(1)

    big = line.fill()
    line.outbox.tell(tell)
    line.outbox.tell(tell)
    assert got(line.far, len(big)) == big
    turn(2)
    assert told == [1]


# The end.


def test_a_peer_that_takes_nothing_ends_the_outbox(lines):
    line = lines(send_timeout=10 * MS)
    line.outbox.write(bytes(4 * MEBIBYTE))
    with in_time():
        while not line.failures:
            gevent.sleep(5 * MS)
    assert [error.reason for error in line.failures] == ["timeout"]
    assert "took nothing for 0.01 s" in str(line.failures[0])
    assert line.failures[0].sent is True
    assert line.outbox.size == 0


def test_a_peer_that_reads_slowly_does_not(lines):
    line = lines(send_timeout=400 * MS)
    big = os.urandom(4 * MEBIBYTE)
    line.outbox.write(big)
    read = b""
    for _ in range(16):
        read += got(line.far, MEBIBYTE // 8)
        gevent.sleep(60 * MS)  # in all, more than twice the limit
    read += got(line.far, len(big) - len(read))
    assert line.failures == []
    assert read == big


def test_a_stop_of_this_process_is_not_held_against_the_peer(lines):
    line = lines(send_timeout=20 * MS)
    big = os.urandom(MEBIBYTE)
    line.outbox.write(big)
    size = len(big) - line.outbox.size
    read = got(line.far, size)
    block(50 * MS)
    turn(3)
    assert line.failures == []
    assert read + got(line.far, len(big) - len(read)) == big


def test_a_lost_line_is_told_once_and_to_whoever_writes_afterwards(line):
    line.fill()
    line.far.close()
    with in_time():
        while not line.failures:
            gevent.sleep(1 * MS)
    for _ in range(2):
        with pytest.raises(Disconnected, match="the line is down") as caught:
            line.outbox.write(b"more")
        assert caught.value.__cause__ is line.failures[0]
    assert len(line.failures) == 1


def test_a_write_that_finds_the_line_lost_does_not_raise(line):
    line.far.close()
    assert line.outbox.write(b"word") is None
    assert len(line.failures) == 1


def test_what_is_queued_when_it_closes_was_never_sent(line):
    line.fill()
    entry = line.outbox.write(b"queued")
    line.outbox.close(Disconnected("gone"))
    assert entry == [b"queued"]
    assert line.outbox.take_back(entry)
    assert line.outbox.size == 0


def test_closing_twice_keeps_the_first_reason(line):
    first = Disconnected("first")
    line.outbox.close(first)
    line.outbox.close(Disconnected("second"))
    assert line.outbox.error is first


# The cork.


def test_nothing_leaves_a_corked_outbox(line):
    line.outbox.corked = True
    line.outbox.write(b"pushed ")
    line.outbox.write(b"in init")
    line.outbox.flush()
    turn()
    assert line.stream.sends == []
    line.outbox.uncork(b"welcome ")
    assert got(line.far, 22) == b"welcome pushed in init"
    assert line.outbox.size == 0


def test_a_corked_outbox_can_be_emptied(line):
    line.outbox.corked = True
    line.outbox.write(b"pushed in init")
    line.outbox.empty()
    line.outbox.write(b"sorry")
    assert line.stream.sends == [b"sorry"]


def test_uncorking_a_closed_outbox_does_nothing(line):
    line.outbox.corked = True
    line.outbox.close(Disconnected("gone"))
    line.outbox.uncork(b"welcome")
    assert line.stream.sends == []
    assert line.outbox.size == 0
