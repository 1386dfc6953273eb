"""A line under TLS carries any bytes in any pieces, says how it ended, and disturbs nobody."""

from __future__ import annotations

import os
import pickle
import ssl

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import MS
from transport.lines import KINDS, PATIENCE, VERSIONS, receive, send, send_sealed

from erps_gevent.errors import Disconnected
from erps_gevent.transport.tcp import READ_SIZE, SEAL_SIZE, Tcp
from erps_gevent.transport.tls import PlaintextPeer
from erps_gevent.transport.tls_stream import RECORD_SIZE

MIB = 1024 * 1024


@pytest.fixture(params=VERSIONS)
def line(request, place, ends, pairs):
    return ends.line(place, *pairs[request.param])


@pytest.mark.parametrize("name", VERSIONS)
def test_one_byte_at_a_time_is_enough(trickle, place, ends, pairs, name):
    near, far = ends.line(place, *pairs[name])
    send(near, b"ping")
    assert receive(far, 4) == b"ping"
    near.shutdown_write()
    assert receive(far) == b""


@pytest.mark.volume
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tcp", *VERSIONS])
def test_16_mib_both_ways_at_once_with_slow_readers(places, ends, pairs, kind, name):
    near, far = ends.line(places(kind), *pairs[name])
    data = os.urandom(MIB) * 16

    def slowly(stream):
        got = bytearray()
        while len(got) < len(data):
            assert stream.wait_readable(PATIENCE)
            got += stream.receive() or b""
            if len(got) % 7 == 0:
                gevent.sleep(0)
        return bytes(got)

    work = [gevent.spawn(send, near, data), gevent.spawn(send, far, data[::-1])]
    reads = [gevent.spawn(slowly, far), gevent.spawn(slowly, near)]
    gevent.joinall(work + reads, timeout=60, raise_error=True)
    assert reads[0].value == data
    assert reads[1].value == data[::-1]


def test_what_came_with_the_handshake_is_there_without_waiting(place, ends, pairs):
    server, client = pairs["TLSv1.3"]
    # The client's last flight and its first words leave in one turn, so that the server reads them together.
    accepting = place.accepting(server)
    near = ends.keep(client.connect(place.address, PATIENCE))
    near.send(near.seal(b"hello"))
    far = ends.keep(accepting.get(timeout=PATIENCE))
    assert receive(far, 5) == b"hello"


def test_half_of_what_came_with_the_handshake_is_none_and_then_whole(place, ends, pairs):
    server, client = pairs["TLSv1.3"]
    accepting = place.accepting(server)
    near = ends.keep(client.connect(place.address, PATIENCE))
    sealed = near.seal(b"hello")
    near.send(sealed[:10])
    far = ends.keep(accepting.get(timeout=PATIENCE))
    assert far.receive() is None
    near.send(sealed[10:])
    assert receive(far, 5) == b"hello"


def test_what_is_sealed_at_once_arrives_whole_whatever_its_size(line):
    near, far = line
    data = os.urandom(3 * SEAL_SIZE + 1)
    sender = gevent.spawn(send_sealed, near, near.seal(data))
    assert receive(far, len(data)) == data
    sender.get(timeout=PATIENCE)


def test_a_record_in_two_pieces_is_none_and_then_whole(line):
    near, far = line
    sealed = near.seal(b"x" * 100)
    send_sealed(near, sealed[:50])
    far.wait_readable(PATIENCE)
    assert far.receive() is None
    assert far.drained
    send_sealed(near, sealed[50:])
    far.wait_readable(PATIENCE)
    assert far.receive() == b"x" * 100


def test_all_records_of_one_read_come_out_together(line):
    near, far = line
    send_sealed(near, b"".join(near.seal(b"%d" % number) for number in range(10)))
    far.wait_readable(PATIENCE)
    assert far.receive() == b"0123456789"


def test_a_whole_record_and_the_start_of_another(line):
    near, far = line
    sealed = near.seal(b"one") + near.seal(b"two")
    send_sealed(near, sealed[:-1])
    far.wait_readable(PATIENCE)
    assert far.receive() == b"one"
    send_sealed(near, sealed[-1:])
    assert receive(far, 3) == b"two"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=3 * RECORD_SIZE) | st.integers(1, 3 * READ_SIZE).map(bytes), max_size=4))
def test_anything_sealed_arrives(line, pieces):
    near, far = line
    sender = gevent.spawn(lambda: [send(near, piece) for piece in pieces])
    assert receive(far, sum(map(len, pieces))) == b"".join(pieces)
    sender.get(timeout=PATIENCE)


def test_sealing_nothing_is_nothing(line):
    assert line[0].seal(b"") == b""


def test_a_view_can_be_sealed_and_sent(line):
    near, far = line
    send_sealed(near, near.seal(memoryview(b"hello")))
    assert receive(far, 5) == b"hello"


def test_a_farewell_ends_the_stream_and_the_other_way_stays_open(line):
    near, far = line
    send_sealed(near, near.seal(b"last") + near.farewell())
    far.wait_readable(PATIENCE)
    assert far.receive() == b"last"
    assert not far.drained
    assert far.receive() == b""
    assert far.receive() == b""
    send(far, b"heard")
    assert receive(near, 5) == b"heard"


def test_farewells_may_cross(line):
    near, far = line
    near_says, far_says = near.farewell(), far.farewell()
    send_sealed(near, near_says)
    send_sealed(far, far_says)
    assert receive(near) == receive(far) == b""
    assert near.farewell() == b""


def test_nothing_can_be_sealed_after_the_farewell(line):
    near, _ = line
    near.farewell()
    with pytest.raises(Disconnected, match="TLS with the server failed") as caught:
        near.seal(b"x")
    assert isinstance(caught.value.__cause__, ssl.SSLError)


def test_an_end_without_farewell_is_an_end_too(line):
    near, far = line
    send(near, b"last")
    near.shutdown_write()
    assert receive(far) == b"last"
    assert far.receive() == b""


def test_damaged_bytes_are_reported_each_time(line):
    near, far = line
    damaged = bytearray(near.seal(b"damaged"))
    damaged[-1] ^= 1
    send_sealed(near, bytes(damaged))
    far.wait_readable(PATIENCE)
    for _ in range(2):
        with pytest.raises(Disconnected, match="TLS with the client failed") as caught:
            far.receive()
    assert caught.value.reason == "tls"
    assert caught.value.sent
    assert isinstance(caught.value.__cause__, ssl.SSLError)


def test_a_good_record_before_a_damaged_one_is_given_out_first(line):
    near, far = line
    good, damaged = near.seal(b"good"), bytearray(near.seal(b"damaged"))
    damaged[-1] ^= 1
    send_sealed(near, good + bytes(damaged))
    far.wait_readable(PATIENCE)
    assert far.receive() == b"good"
    assert not far.drained
    with pytest.raises(Disconnected):
        far.receive()


def test_after_a_fault_the_farewell_is_the_alert(line):
    near, far = line
    damaged = bytearray(near.seal(b"damaged"))
    damaged[-1] ^= 1
    send_sealed(near, bytes(damaged))
    far.wait_readable(PATIENCE)
    with pytest.raises(Disconnected):
        far.receive()
    send_sealed(far, far.farewell())
    near.wait_readable(PATIENCE)
    with pytest.raises(Disconnected, match="BAD_RECORD_MAC"):
        near.receive()


def test_a_reset_says_so(line):
    near, far = line
    send(near, b"unread")
    far.wait_readable(PATIENCE)
    far.close()
    with pytest.raises(Disconnected, match="the other end reset the connection") as caught:
        receive(near)
    assert caught.value.reason == "reset"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_that_abandons_its_copy_does_not_disturb_the_parent(line):
    near, far = line
    pid = os.fork()
    if pid == 0:
        near.abandon()
        far.abandon()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    send(near, b"still here")
    assert receive(far, 10) == b"still here"
    assert near.receive() is None


def test_reading_and_writing_do_not_wait_for_each_other(line):
    near, far = line
    reading = gevent.spawn(receive, near, 5)
    gevent.sleep(0)
    send(near, b"ping")
    assert receive(far, 4) == b"ping"
    send(far, b"heard")
    assert reading.get(timeout=PATIENCE) == b"heard"


def test_a_piece_of_seal_size_grows_by_little(line):
    near, _ = line
    assert len(near.seal(bytes(SEAL_SIZE))) < SEAL_SIZE * 1.01


def test_a_waiting_line_prints_its_peer(line):
    near, far = line
    assert "TlsStream" in repr(near)
    assert near.receive() is None
    assert near.wait_readable(5 * MS) is False
    assert far.wait_writable(5 * MS) is True


def test_a_plaintext_peer_pickles_without_its_socket(place, ends):
    error = PlaintextPeer("text")
    error.stream = ends.line(place, Tcp(), Tcp())[0]
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.stream) == ("text", None)


def test_a_certificate_that_python_does_not_show_is_left_out_of_the_message(place, ends, authority, client_tls):
    accepting = place.accepting(authority.tls("other.example"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("erps_gevent.transport.tls_stream._presented_by", lambda tls: None)
        with pytest.raises(Disconnected, match="it has other names; dial it by such a name"):
            client_tls.connect(place.address, PATIENCE)
    accepting.get(timeout=PATIENCE)
