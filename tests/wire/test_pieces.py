"""Pieces are the bytes that they are of, however they are cut; an Arrival is its packet, however it comes."""

from __future__ import annotations

import itertools
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erps_gevent.wire import pieces
from erps_gevent.wire.pieces import SLAB, SPARES, Arrival, Pieces

parts = st.lists(st.binary(max_size=8), max_size=6)
places = st.integers(-50, 50)


@pytest.fixture(autouse=True)
def no_spare_slabs(monkeypatch):
    monkeypatch.setattr(pieces, "_spare", [])


PATTERN = b"".join(number.to_bytes(4, "big") for number in range(1_000_000))


def pattern(size: int) -> bytes:
    """Bytes of which every stretch says where it is from."""
    return PATTERN[:size]


# Pieces


@given(parts=parts, start=places, stop=places)
def test_a_slice_is_that_of_the_bytes(parts, start, stop):
    whole = b"".join(parts)
    assert Pieces(parts)[start:stop] == whole[start:stop]
    assert Pieces(parts)[:stop] == whole[:stop]
    assert Pieces(parts)[start:] == whole[start:]


@given(parts=parts, edges=st.tuples(st.integers(0, 50), st.integers(0, 50)))
def test_a_cut_or_a_view_has_the_bytes_of_the_slice(parts, edges):
    start, stop = sorted(edges)
    whole = b"".join(parts)
    cut = Pieces(parts).cut(start, stop)
    assert (bytes(cut), len(cut)) == (whole[start:stop], len(whole[start:stop]))
    assert Pieces(parts).view(start, stop) == whole[start:stop]


@given(parts=parts)
def test_pieces_have_the_size_and_the_bytes_of_all(parts):
    whole = b"".join(parts)
    made = Pieces(parts)
    assert (bytes(made), len(made), bool(made)) == (whole, len(whole), bool(whole))
    assert [made[at] for at in range(len(whole))] == list(whole)


def test_there_is_nothing_beyond_the_end():
    with pytest.raises(IndexError):
        Pieces((b"ab", b"c"))[3]


def test_pieces_go_on_after_others():
    assert bytes(Pieces((b"b", b"c")).after(b"a")) == b"abc"


def test_what_is_in_one_piece_is_not_copied():
    value = bytearray(b"a value")
    view = Pieces((b"head", value, b"tail")).view(4, 9)
    value[0] = ord("A")
    assert view == b"A val"


# Arrival


def arrived(packet: bytes, sizes: list[int]) -> tuple[bytes, bytes]:
    """The packet as it arrived in chunks of these sizes, and the rest one chunk; and what was beyond it."""
    chunks = [packet[start:end] for start, end in itertools.pairwise(itertools.accumulate((0, *sizes)))]
    arrival = Arrival(chunks[0], len(packet))
    rest = b""
    for chunk in (*chunks[1:], packet[sum(sizes) :] + b"next"):
        assert not rest
        rest = arrival.fill(chunk) if arrival.missing else chunk
    assert not arrival.missing
    return bytes(arrival.packet()), rest


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 700_000), min_size=1, max_size=5))
def test_a_packet_arrives_in_chunks_of_any_size(sizes):
    packet = pattern(sum(sizes) + 100_000)
    assert arrived(packet, sizes) == (packet, b"next")


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1000, 1_500_000), min_size=1, max_size=8))
def test_a_packet_arrives_in_its_room(sizes):
    packet = pattern(2 * SLAB + 100_000)
    at = 50_000
    arrival = Arrival(packet[:at], len(packet))
    for size in itertools.cycle(sizes):
        taken = arrival.room[:size]
        taken[:] = packet[at : at + len(taken)]
        at += len(taken)
        assert arrival.fill(taken) == b""
        assert arrival.missing == len(packet) - at
        if not arrival.missing:
            break
    assert bytes(arrival.packet()) == packet


def test_the_room_ends_where_the_packet_does():
    assert len(Arrival(bytes(100), 110).room) == 10


def test_the_room_is_no_larger_than_a_slab():
    assert len(Arrival(b"erps", 16 << 20).room) == SLAB


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory there is")
def test_what_was_declared_and_has_not_come_takes_no_memory():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    arrivals = [Arrival(b"erps", 16 << 20) for _ in range(100)]
    assert resident() - before < 10 * SLAB
    assert all(arrival.missing for arrival in arrivals)


# Slabs


def arrival_of_slabs(count: int, letter: bytes = b"x") -> Arrival:
    arrival = Arrival(b"", count * SLAB)
    arrival.fill(letter * arrival.missing)
    return arrival


def test_a_slab_is_used_again_when_nobody_reads_it():
    arrival = Arrival(b"", SLAB)
    memory = arrival.room.obj
    arrival.fill(bytes(SLAB))
    arrival.packet().cut(10, 20).free()
    assert Arrival(b"", SLAB).room.obj is memory


def test_a_slab_is_nobody_elses_until_it_is_freed():
    one, other = arrival_of_slabs(1, b"1"), arrival_of_slabs(1, b"2")
    assert bytes(one.packet()) == b"1" * SLAB
    assert bytes(other.packet()) == b"2" * SLAB


def test_a_few_slabs_are_kept():
    arrival_of_slabs(SPARES + 2).packet().free()
    assert len(pieces._spare) == SPARES


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_slabs_of_its_own():
    arrival = Arrival(b"", SLAB)
    child = os.fork()
    if not child:
        arrival.room[:5] = b"child"
        os._exit(0)
    os.waitpid(child, 0)
    assert bytes(arrival.room[:5]) == bytes(5)
