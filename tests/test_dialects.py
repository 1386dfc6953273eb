"""Both faces with codec="etf": recorded conversations with Erps 0.7, byte for byte, and peers that read as it reads."""

from __future__ import annotations

import logging
import zlib
from time import monotonic

import gevent
import pytest
from ends import got, in_time, put
from erlang_terms import recorded
from faces import PATIENCE, Notes, until
from gevent.socket import wait_read
from support import MS

import erps_gevent as erps
from erps_gevent import Atom
from erps_gevent.dialects import NAMES
from erps_gevent.options import BOTH
from erps_gevent.transport.address import parse_address
from erps_gevent.transport.sockets import listen
from erps_gevent.transport.tcp import READ_SIZE
from erps_gevent.wire.etf import decode
from erps_gevent.wire.etf_session import EtfServerSession
from erps_gevent.wire.packet import Framer, Stamp, Type

EXCHANGES = recorded("server_exchanges.json")
SESSION = [(step["from"], bytes.fromhex(step["bytes"])) for step in recorded("client_session.json")]
ERPS_POLL = 100 * MS  # between two reads of a client of Erps


class Interop(erps.Server, identifier="interop", versions="~=0.2", codec="etf"):
    """What the recorded server does, and some more."""

    def init(self, note=lambda *_: None):
        self.note = note

    def handle_call(self, request, from_):
        match request:
            case ("push", message):
                return erps.Reply(Atom("ok"), then=erps.Continue(message))
            case ("sum", a, b):
                return erps.Reply(a + b)
            case ("slow", seconds):
                gevent.sleep(seconds)
                return erps.Reply("done")
            case ("refuse", data):
                raise erps.ErrorReply("no_stock", "none is left", data)
            case ("crash",):
                raise ValueError("boom")
        return erps.Reply(request)

    def handle_continue(self, message):
        self.push(message)

    def handle_cast(self, request):
        self.note("cast", request)

    def terminate(self, reason):
        self.note("terminate", reason)


class InteropClient(erps.Client, identifier="interop", version="0.2.6", codec="etf"):
    def init(self, note=lambda *_: None):
        self.note = note

    def handle_push(self, message):
        self.note("push", message)

    def handle_disconnect(self, error):
        self.note("lost", error)


@pytest.fixture
def daemon(house):
    return house.daemon(Interop)


@pytest.fixture
def client(house, daemon):
    return house.client(daemon, cls=InteropClient)


def dial(house, daemon):
    """A line to the daemon with nothing behind it."""
    stream = house.wire.client.connect(parse_address(daemon.address), PATIENCE)
    house.sockets.append(stream)
    return stream


def test_each_name_of_the_option_is_a_dialect():
    for name in NAMES:
        assert BOTH["codec"].check("codec", name) == name
    with pytest.raises(erps.ConfigError) as caught:
        BOTH["codec"].check("codec", "json")
    assert all(repr(name) in str(caught.value) for name in NAMES)


# A recorded client of Erps talks to a daemon.


def replayed(stream, exchange):
    """Send what was sent; what comes must be what came."""
    for step in exchange:
        put(stream, bytes.fromhex(step["sent"]))
        expected = bytes.fromhex(step["received"])
        assert got(stream, len(expected)).hex() == expected.hex()


@pytest.mark.parametrize("name", ["call then reply", "keepalive then call", "call that makes the server push"])
def test_a_recorded_exchange_with_a_server_happens_here_too(house, daemon, name):
    replayed(dial(house, daemon), EXCHANGES[name]["exchange"])


@pytest.mark.parametrize("name", ["wrong identifier", "incompatible version", "authentication provided"])
def test_a_client_that_is_refused_hears_what_erps_says_and_then_the_end(house, daemon, name):
    """Erps leaves the line open and never reads again (F4)."""
    stream = dial(house, daemon)
    replayed(stream, EXCHANGES[name]["exchange"][:1])
    assert got(stream) == b""
    until(lambda: not daemon.servers)


def test_two_packets_that_share_a_segment_are_both_answered(house, daemon):
    """Erps stops at them (F1)."""
    stream = dial(house, daemon)
    put(stream, bytes.fromhex(EXCHANGES["two packets in one segment"]["exchange"][0]["sent"]))
    first, second = Framer(10_000).feed(got(stream, 2 * (96 + 17)))
    assert [decode(frame.payload)[1] for frame in (first, second)] == [11, 12]


class Recorded(Interop, identifier="interop", codec="etf"):
    """The server of client_session.json: it answers with the sum and then pushes."""

    def handle_call(self, request, from_):
        assert request == ("add", 1, 2)
        return erps.Reply(3, then=erps.Continue("hello"))


def test_the_recorded_session_of_a_client_of_erps_happens_here_too(house):
    notes = Notes()
    daemon = house.daemon(Recorded, notes)
    stream = dial(house, daemon)
    for by, data in SESSION:
        if by == "client":
            put(stream, data)
        else:
            assert got(stream, len(data)).hex() == data.hex()
    assert notes.wait("cast") == [("note", "hi", {"a": 1})]
    stream.close()
    assert notes.wait("terminate") == [erps.Shutdown("disconnected")]


# A client talks to a recorded server of Erps.


@pytest.fixture
def answering(house):
    """Listens; `answering(script)` runs `script(stream)` for the one client that comes."""
    listener = listen(("127.0.0.1", 0))
    running = []

    def start(script):
        def run():
            wait_read(listener.fileno(), timeout=PATIENCE)
            stream = house.wire.server.accept(*listener.accept(), PATIENCE)
            try:
                script(stream)
            finally:
                stream.close()

        running.append(gevent.spawn(run))
        return listener.getsockname()

    yield start
    listener.close()
    for greenlet in running:
        greenlet.get(timeout=PATIENCE)


def test_the_recorded_session_of_a_server_of_erps_happens_here_too(house, answering):
    notes = Notes()
    call, reply, push, cast_and_keepalive = (data for _, data in SESSION[:4])

    def script(stream):
        assert got(stream, len(call)).hex() == call.hex()
        put(stream, reply)
        put(stream, push)
        # In the recording the two shared a segment.
        assert got(stream, len(cast_and_keepalive)).hex() == cast_and_keepalive.hex()
        for _, keepalive in SESSION[4:]:
            assert got(stream, len(keepalive)).hex() == keepalive.hex()

    client = house.client(answering(script), notes, cls=InteropClient, keepalive=300 * MS, pacing=20 * MS)
    client.wait_connected()
    # The reference of the recording is a hash of Erlang's.
    client._lifeline.line.session._last_ref = decode(call[96:])[0] - 1
    assert client.call((Atom("add"), 1, 2)) == 3
    assert notes.wait("push") == ["hello"]
    client.cast((Atom("note"), "hi", {Atom("a"): 1}))
    notes.wait("lost")


@pytest.mark.parametrize(
    ("name", "cls"), [("wrong identifier", erps.IdentifierMismatch), ("incompatible version", erps.VersionMismatch)]
)
def test_a_caller_is_told_why_a_recorded_server_refused(house, answering, name, cls):
    received = bytes.fromhex(EXCHANGES[name]["exchange"][0]["received"])

    def script(stream):
        assert got(stream, 96)
        put(stream, received)
        # It never reads again, and leaves the line open (F4): the client has to end it.
        while stream.receive() != b"":
            assert stream.wait_readable(PATIENCE)

    client = house.client(answering(script), cls=InteropClient, heal=False)
    began = monotonic()
    with pytest.raises(erps.Disconnected) as caught:
        client.call("x")
    assert type(caught.value.__cause__) is cls
    assert monotonic() - began < 4.0, "Erps has its caller wait for all of its five seconds"


def test_a_reply_and_a_push_in_one_segment_are_both_taken(house, answering):
    notes = Notes()
    step = EXCHANGES["call that makes the server push"]["exchange"][0]

    def script(stream):
        got(stream, 96)
        put(stream, bytes.fromhex(step["received"]))
        while stream.receive() != b"":
            assert stream.wait_readable(PATIENCE)

    client = house.client(answering(script), notes, cls=InteropClient)
    client.wait_connected()
    client._lifeline.line.session._last_ref = 12
    assert client.call((Atom("push"), "hello")) == Atom("ok")
    assert notes.wait("push") == ["hello"]
    client.close()


# Peers that read as Erps reads: all that has arrived is taken for one packet.


def read_as_erps(stream):
    """One packet, or b"" at the end; whatever else has arrived is what makes Erps stop."""
    while (chunk := stream.receive()) is None:
        assert stream.wait_readable(PATIENCE), "nothing came"
    if not chunk:
        return None
    frames = Framer(READ_SIZE).feed(chunk)
    assert len(frames) == 1, f"einval: {len(frames)} packets in one read"
    return frames[0]


@pytest.mark.parametrize("busy", [0, 20 * MS])
def test_calls_of_many_callers_reach_a_server_of_erps_one_by_one(house, answering, busy):
    def script(stream):
        while (frame := read_as_erps(stream)) is not None:
            assert frame.type == Type.CALL
            gevent.sleep(busy)  # its handler, during which it does not read
            put(stream, _reply(frame))

    client = house.client(answering(script), cls=InteropClient)
    callers = [gevent.spawn(client.call, ("echo", n)) for n in range(10)]
    assert [caller.get(timeout=PATIENCE) for caller in callers] == [("echo", n) for n in range(10)]
    client.close()


def _reply(frame):
    """The recorded server's answer: an echo."""
    ref, request = decode(frame.payload)
    return EtfServerSession(Stamp((0, 0, 0), "")).reply(ref, request)


def test_replies_and_pushes_reach_a_client_of_erps_one_by_one(house, daemon):
    """It reads every 100 ms; what it finds together it drops."""
    stream = dial(house, daemon)
    for name in ("call then reply", "call that makes the server push"):
        put(stream, bytes.fromhex(EXCHANGES[name]["exchange"][0]["sent"]))
    for _ in range(3):
        assert read_as_erps(stream) is not None
        gevent.sleep(ERPS_POLL)


# Both ends are of this library.


def test_values_keep_the_types_that_erlang_has(house, daemon, hub):
    client = house.client(daemon, cls=InteropClient, hub=hub)
    value = (Atom("ok"), {"name": "grüße", Atom("n"): [1, 2.5, None, True]}, b"\xff", 2**80, [104, 105])
    assert client.call(value) == value


def test_an_error_reply_is_raised_in_the_caller(client):
    with pytest.raises(erps.ErrorReply) as caught:
        client.call(("refuse", {"left": 0}))
    assert (caught.value.kind, caught.value.message, caught.value.data) == ("no_stock", "none is left", {"left": 0})


def test_a_crash_of_the_server_ends_the_call_and_the_client_heals(client):
    with pytest.raises(erps.ServerExit) as caught:
        client.call(("crash",))
    assert (caught.value.kind, caught.value.message) == ("ValueError", "boom")
    assert client.call("again", wait=True) == "again"


def test_what_cannot_be_sent_is_named_with_its_place(client):
    with pytest.raises(erps.EncodeError, match=r"cannot send request\[1\]\['when'\]: the type set has no term"):
        client.call(("at", {"when": {1}}))
    with pytest.raises(erps.EncodeError, match="the type set"):
        client.cast({1})


def test_an_atom_travels_as_text_where_the_codec_is_cbor(plain_house):
    daemon = plain_house.daemon(Interop, codec="cbor")
    client = plain_house.client(daemon, cls=InteropClient, codec="cbor")
    assert type(client.call(Atom("ok"))) is str


@pytest.mark.parametrize(("at_server", "at_client"), [("etf", "cbor"), ("cbor", "etf")])
def test_ends_of_two_dialects_part_with_a_named_error(plain_house, at_server, at_client):
    daemon = plain_house.daemon(Interop, codec=at_server)
    client = plain_house.client(daemon, cls=InteropClient, codec=at_client, heal=False)
    with pytest.raises(erps.Disconnected) as caught:
        client.call("x")
    assert isinstance(caught.value.__cause__, erps.BadPacket)


def test_a_broadcast_is_checked_by_the_dialect(house, daemon):
    notes = Notes()
    clients = [house.client(daemon, notes, cls=InteropClient) for _ in range(2)]
    for client in clients:
        client.call("here")
    assert daemon.broadcast((Atom("news"), 1)) == 2
    assert notes.wait("push", 2) == [(Atom("news"), 1)] * 2
    with pytest.raises(erps.EncodeError, match="the type set"):
        daemon.broadcast({1})


def test_a_daemon_that_stops_ends_idle_lines_and_waits_for_busy_ones(house, daemon):
    notes = Notes()
    idle, busy = (house.client(daemon, notes, cls=InteropClient) for _ in range(2))
    idle.call("here")
    caller = gevent.spawn(busy.call, ("slow", 100 * MS))
    until(lambda: len(daemon.servers) == 2 and any(server.pending for server in daemon.servers))
    with in_time():
        assert daemon.drain(timeout=PATIENCE)
    assert caller.get(timeout=PATIENCE) == "done"
    assert len(notes.wait("lost", 2)) >= 2


def test_a_client_heals_onto_the_next_daemon(plain_house):
    daemon = plain_house.daemon(Interop)
    client = plain_house.client(daemon, cls=InteropClient)
    client.call("one")
    address = daemon.address
    daemon.stop(timeout=PATIENCE)
    plain_house.daemon(Interop, listener=address)
    assert client.call("two", wait=True) == "two"


def test_a_client_in_clear_is_told_that_the_port_speaks_tls(house, daemon):
    if house.wire.kind == "tcp":
        pytest.skip("this port does not")
    sock = house.raw(daemon)
    sock.sendall(SESSION[0][1])
    answer = b""
    while chunk := sock.recv(READ_SIZE):
        answer += chunk
    assert decode(answer[96:]).startswith("BadPacket: this port speaks TLS")


@pytest.mark.parametrize("compressed", [True, 9])
def test_both_ends_compress_if_they_are_asked_to(house, compressed):
    daemon = house.daemon(Interop, compressed=compressed)
    client = house.client(daemon, cls=InteropClient, compressed=compressed)
    assert client.call("x" * 100_000) == "x" * 100_000
    assert daemon.servers[0].received_bytes < 1000


GARBAGE = {
    "nothing": b"",
    "no term": b"\x83z",
    "a list of 4 billion": b"\x83l\xff\xff\xff\xff",
    "4 billion compressed bytes": b"\x83P\xff\xff\xff\xffx",
    "a zip bomb": b"\x83P\x00\xff\xff\xf0" + zlib.compress(bytes(64 << 20), 9),
    "deep nesting": b"\x83" + 100_000 * b"h\1",
    "a flood of atoms": b"\x83l\0\0\x13\x88" + b"".join(b"w\5%05x" % n for n in range(5000)) + b"j",
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_its_own_line_only(house, daemon, client, payload, caplog):
    caplog.set_level(logging.INFO)
    client.call("here")
    stream = dial(house, daemon)
    put(stream, SESSION[0][1][:4] + len(payload).to_bytes(4, "big") + SESSION[0][1][8:96] + payload)
    (refusal,) = Framer(READ_SIZE).feed(got(stream))
    assert refusal.type == Type.ERROR
    assert decode(refusal.payload).startswith(("BadPacket: ", "PacketTooLarge: ", "UnsafeTerm: "))
    assert client.call("still") == "still"
    assert client.stats["lost"] == 0


def test_a_queue_of_pushes_that_erps_cannot_read_in_time_is_bounded(plain_house):
    class Flood(Interop):
        def handle_cast(self, request):
            try:
                while True:
                    self.push("more", timeout=0)
            except erps.CallTimeout as error:
                self.note("full", str(error))

    notes = Notes()
    daemon = plain_house.daemon(Flood, notes)
    client = plain_house.client(daemon, cls=InteropClient)
    client.cast("go")
    assert "no room to send in time" in notes.wait("full")[0]
    until(lambda: client.stats["pushes"] >= 1)
    daemon.stop(timeout=0)
