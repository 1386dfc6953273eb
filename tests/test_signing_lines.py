"""Lines that sign, over real sockets: who gets in, who is between, and how keys are changed without a failed call."""

from __future__ import annotations

import logging
from itertools import count

import gevent
import pytest
from ends import in_time, turn
from faces import PATIENCE, Gate, House, Lab, LabClient, Notes, free_port, until, wire
from gevent.event import Event
from meddler import CLIENT, SERVER, Meddler
from support import MS

import erps_gevent as erps
from erps_gevent import Keyring, NoReply, Reply
from erps_gevent.wire.packet import KEEPALIVE, Framer, Stamp, Type
from erps_gevent.wire.payloads import READERS
from erps_gevent.wire.refusals import Code
from erps_gevent.wire.session import ClientSession
from erps_gevent.wire.signing import UNKNOWN
from erps_gevent.wire.terms import decode

OLD, NEW = b"o" * 32, b"n" * 32
OLD_RING = Keyring({"old": OLD})
NEW_RING = Keyring({"new": NEW})
BOTH = Keyring({"old": OLD, "new": NEW}, use="new")
STAMP = Stamp((1, 0, 3), "lab")


@pytest.fixture(params=["tcp", "one way", "tls1.2", "tls1.3"])
def anywhere(request, certs):
    made = House(wire(request.param, certs))
    yield made
    made.close()


@pytest.fixture
def meddlers():
    made = []
    yield lambda *args: made.append(Meddler(*args)) or made[-1]
    for meddler in made:
        meddler.close()


class Counting(Lab):
    """Counts how often init runs, and what was cast."""

    begun = 0

    def init(self, notes=None, **acts):
        type(self).begun += 1
        super().init({"peer": lambda server, _: Reply(str(server.peer.key_id)), **acts}, notes)
        if notes:
            notes("init", self.peer)


@pytest.fixture
def counting():
    return type("Fresh", (Counting,), {"begun": 0})


def cause_of(client, request=("echo", 1), timeout=PATIENCE):
    """Why a call failed."""
    with pytest.raises(erps.Disconnected) as caught:
        client.call(request, timeout=timeout)
    return caught.value.__cause__


def root_of(error):
    """What lies below the Disconnecteds."""
    while isinstance(error, erps.Disconnected):
        error = error.__cause__
    return error


# Who gets in.


def test_a_signed_line_carries_all_that_another_does(anywhere, hub):
    notes, seen = Notes(), Notes()
    acts = {"push": lambda server, _, message: (server.push(message), Reply(None))[1]}
    daemon = anywhere.daemon(Lab, acts, seen, signing=OLD_RING)
    client = anywhere.client(daemon, notes, signing=OLD_RING, hub=hub, compressed=True)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    large = bytes(range(256)) * 8192
    assert client.call(("echo", large), timeout=PATIENCE) == large
    client.cast("reset")
    seen.wait("cast")
    client.call(("push", "news"), timeout=PATIENCE)
    assert notes.wait("push") == ["news"]
    with pytest.raises(erps.ErrorReply):
        client.call("nonsense", timeout=PATIENCE)


def test_the_peer_has_the_id_of_the_key_at_both_ends(anywhere):
    notes = Notes()
    daemon = anywhere.daemon(Counting, notes, signing=BOTH)
    client = anywhere.client(daemon, signing=OLD_RING)
    assert client.call(("peer",), timeout=PATIENCE) == "old"
    assert notes.of("init")[0].key_id == "old"
    assert daemon.servers[0].peer.key_id == "old"
    assert client.peer.key_id == "old"
    assert "key 'old' at " in str(daemon.servers[0].peer)


def test_an_unsigned_line_has_no_key_id(plain_house):
    daemon = plain_house.daemon(Counting)
    assert plain_house.client(daemon).call(("peer",), timeout=PATIENCE) == "None"


def test_a_signed_line_over_a_unix_socket(plain_house, tmp_path):
    path = str(tmp_path / "s")
    plain_house.daemon(Counting, listener=path, signing=OLD_RING)
    assert plain_house.client(path, signing=OLD_RING).call(("peer",), timeout=PATIENCE) == "old"


def test_with_one_way_tls_the_key_tells_who_the_client_is(certs):
    house = House(wire("one way", certs))
    try:
        daemon = house.daemon(Counting, signing=Keyring({"alice": OLD, "bob": NEW}, use="alice"))
        alice = house.client(daemon, signing=Keyring({"alice": OLD}))
        bob = house.client(daemon, signing=Keyring({"bob": NEW}))
        assert alice.call(("peer",), timeout=PATIENCE) == "alice"
        assert bob.call(("peer",), timeout=PATIENCE) == "bob"
        assert daemon.servers[0].subject is None
        assert type(cause_of(house.client(daemon))) is erps.SignatureMismatch
    finally:
        house.close()


@pytest.mark.parametrize(
    ("server", "client", "said"),
    [
        (OLD_RING, None, UNKNOWN),
        (None, OLD_RING, "that server has no signing=, or not the key 'old' with the same secret"),
        (OLD_RING, NEW_RING, "or not the key 'new' with the same secret"),
        (OLD_RING, Keyring({"old": NEW}), "or not the key 'old' with the same secret"),
    ],
    ids=["unsigned to signing", "signed to unsigning", "another key", "another secret"],
)
def test_without_a_key_in_common_nobody_gets_in(anywhere, caplog, counting, server, client, said):
    caplog.set_level(logging.INFO, "erps_gevent")
    daemon = anywhere.daemon(counting, signing=server)
    cause = cause_of(anywhere.client(daemon, signing=client))
    assert type(cause) is erps.SignatureMismatch
    assert said in str(cause)
    assert counting.begun == 0
    until(lambda: daemon.info()["handshake_failures"] == 1)
    assert "was not let in: the " in caplog.text


def test_a_stranger_learns_nothing_of_a_server_that_signs(plain_house):
    daemon = plain_house.daemon(Lab, signing=OLD_RING)
    for first in (ClientSession(Stamp((9, 0, 0), "nobody")).hello(), b"GET / HTTP/1.1\r\n\r\n", STAMP.frame(4, b"")):
        sock = plain_house.raw(daemon)
        sock.sendall(first)
        said = b""
        while chunk := sock.recv(65536):
            said += chunk
        [frame] = Framer(5000).feed(said)
        told = READERS[frame.type](decode(frame.payload)).value
        assert (told.code, told.message) == (Code.SIGNATURE, UNKNOWN)
        assert not any(said[48:96])


def test_the_daemon_s_start_option_wins_over_the_class_keyword(plain_house):
    class Signed(Lab, signing=OLD_RING):
        pass

    class SignedClient(LabClient, signing=OLD_RING):
        pass

    by_class = plain_house.daemon(Signed)
    assert plain_house.client(by_class, cls=SignedClient).call(("echo", 1), timeout=PATIENCE) == 1
    started = plain_house.daemon(Signed, signing=NEW_RING)
    assert plain_house.client(started, cls=SignedClient, signing=NEW_RING).call(("echo", 1), timeout=PATIENCE) == 1
    assert type(cause_of(plain_house.client(started, cls=SignedClient))) is erps.SignatureMismatch
    unsigned = plain_house.daemon(Signed, signing=None)
    assert plain_house.client(unsigned).call(("echo", 1), timeout=PATIENCE) == 1


def test_a_client_in_clear_is_told_of_the_tls_port_that_signs(certs):
    house = House(wire("one way", certs))
    try:
        daemon = house.daemon(signing=OLD_RING)
        plain = house.client(daemon, transport=erps.Tcp())
        assert "this port speaks TLS" in str(cause_of(plain))
        signed = house.client(daemon, transport=erps.Tcp(), signing=OLD_RING)
        assert "or needs another transport=" in str(cause_of(signed))
    finally:
        house.close()


# What leaves is numbered as it leaves.


def test_what_init_pushes_comes_after_the_welcome(anywhere):
    class Eager(Lab):
        def init(self):
            super().init()
            for number in range(3):
                self.push(number)

    notes = Notes()
    client = anywhere.client(anywhere.daemon(Eager, signing=OLD_RING), notes, signing=OLD_RING)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert notes.wait("push", 3) == [0, 1, 2]


def test_an_init_that_fails_after_pushing_is_told(plain_house):
    class Eager(Lab):
        def init(self):
            self.push("lost")
            raise ValueError("no shop today")

    cause = cause_of(plain_house.client(plain_house.daemon(Eager, signing=OLD_RING), signing=OLD_RING))
    assert type(cause) is erps.StartError
    assert "no shop today" in str(cause)


def test_a_full_house_is_told_under_the_key(plain_house):
    daemon = plain_house.daemon(signing=OLD_RING, max_connections=1)
    plain_house.client(daemon, signing=OLD_RING).wait_connected(PATIENCE)
    assert type(cause_of(plain_house.client(daemon, signing=OLD_RING))) is erps.Overloaded


def test_a_request_that_is_taken_back_leaves_no_gap(plain_house):
    client = plain_house.client(plain_house.daemon(signing=OLD_RING), signing=OLD_RING)
    client.wait_connected(PATIENCE)
    outbox = client._lifeline.healer.line.outbox
    outbox.corked = True
    callers = [gevent.spawn(client.call, ("echo", number), timeout=PATIENCE) for number in range(20)]
    turn()
    queued = outbox.size
    gevent.killall(callers[1::2])
    assert outbox.size == queued / 2
    outbox.corked = False
    outbox.flush()
    with in_time():
        assert [caller.get() for caller in callers[::2]] == list(range(0, 20, 2))
        assert client.call(("echo", "on"), timeout=PATIENCE) == "on"
    assert client.stats["connects"] == 1


def test_replies_that_wait_for_room_leave_in_any_order(plain_house):
    acts = {"large": lambda server, from_, size: gevent.spawn(from_.reply, bytes(size)) and NoReply()}
    client = plain_house.client(plain_house.daemon(Lab, acts, signing=OLD_RING), signing=OLD_RING)
    callers = [gevent.spawn(client.call, ("large", size * 1000), timeout=PATIENCE) for size in range(600, 640)]
    with in_time():
        assert [len(caller.get()) for caller in callers] == [size * 1000 for size in range(600, 640)]
    assert client.stats["connects"] == 1


def test_a_line_lives_on_signed_keepalives(plain_house, meddlers):
    daemon = plain_house.daemon(signing=OLD_RING)
    meddler = meddlers(daemon.address)
    client = plain_house.client(meddler.address, signing=OLD_RING, keepalive=10 * MS, dead_after=PATIENCE)
    client.wait_connected(PATIENCE)
    until(lambda: meddler.lines[0].types(SERVER).count(Type.KEEPALIVE) >= 3, "three echoes")
    pings = [packet for packet in meddler.lines[0].sent[CLIENT] if packet[8] == Type.KEEPALIVE]
    assert {len(packet) for packet in pings} == {96}
    assert len({packet[64:] for packet in pings}) == len(pings)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["connects"] == 1


# Somebody is between.


def meddled(house, meddlers, server=Lab, *args, meddle=None):
    """A line with somebody between: its client, and the meddler."""
    daemon = house.daemon(server, *args, signing=OLD_RING)
    meddler = meddlers(daemon.address, *([meddle] if meddle else []))
    return house.client(meddler.address, signing=OLD_RING, heal=False), meddler


def at(whose, place, do):
    """Meddle with this packet, and pass the others on."""
    return lambda who, number, packet: do(packet) if (who, number) == (whose, place) else packet


def flipped(packet, bit=-1):
    data = bytearray(packet)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def test_who_only_passes_on_is_not_noticed(plain_house, meddlers):
    client, meddler = meddled(plain_house, meddlers)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    line = meddler.lines[0]
    assert line.types(CLIENT) == [Type.HELLO, Type.KEEPALIVE, Type.CALL]
    assert line.types(SERVER) == [Type.HELLO, Type.WELCOME, Type.REPLY]


# A bit of the type, the version, the identifier, the key id, and two of the signature.
BITS = {
    "type": 8 * 8 + 2,
    "version": 9 * 8,
    "identifier": 12 * 8,
    "key id": 50 * 8,
    "first": 64 * 8,
    "last": 95 * 8 + 7,
}


@pytest.mark.parametrize("number", range(3), ids=["hello", "proof or welcome", "call or reply"])
@pytest.mark.parametrize("who", [CLIENT, SERVER])
@pytest.mark.parametrize("bit", BITS.values(), ids=BITS)
def test_a_flipped_bit_ends_the_line(plain_house, meddlers, caplog, who, number, bit):
    caplog.set_level(logging.INFO, "erps_gevent")
    seen = Notes()
    acts = {"note": lambda server, _, value: (seen("call", value), Reply(value))[1]}
    meddle = at(who, number, lambda packet: flipped(packet, bit))
    client, _ = meddled(plain_house, meddlers, Lab, acts, meddle=meddle)
    cause = root_of(cause_of(client, ("note", 1)))
    if bit == BITS["type"]:
        # There may be no such type, or one without a place there.
        assert isinstance(cause, erps.ProtocolError)
    else:
        assert type(cause) is erps.SignatureMismatch
    if (who, number) != (SERVER, 2):
        assert seen.of("call") == []


def casting(house, meddlers, meddle):
    """What the server of a client has heard that casts 0 to 4, and why the line ended."""
    seen = Notes()
    client, _ = meddled(house, meddlers, Lab, {}, seen, meddle=meddle)
    client.wait_connected(PATIENCE)
    for number in range(5):
        client.cast(number)
        gevent.sleep(0)
    cause = root_of(until(lambda: client.info()["cause"]))
    assert type(cause) is erps.SignatureMismatch
    return seen.of("cast")


def holding(*places):
    """Hold these packets of the client back, and send them, in this order, before the one that follows."""
    held = {}

    def meddle(who, number, packet):
        if who == CLIENT and number in places:
            held[number] = packet
            return b""
        if held and who == CLIENT:
            packet = b"".join(held.pop(place) for place in places) + packet
        return packet

    return meddle


def test_a_packet_that_is_left_out_ends_the_line(plain_house, meddlers):
    assert casting(plain_house, meddlers, at(CLIENT, 4, lambda packet: b"")) == [0, 1]


def test_a_packet_that_is_replayed_ends_the_line(plain_house, meddlers):
    assert casting(plain_house, meddlers, at(CLIENT, 4, lambda packet: packet * 2)) == [0, 1, 2]


def test_packets_in_another_order_end_the_line(plain_house, meddlers):
    assert casting(plain_house, meddlers, holding(4, 3)) == [0]


def test_a_packet_without_a_signature_ends_the_line(plain_house, meddlers):
    forged = STAMP.frame(Type.CAST, b"\x82\xf6\x18\x63")
    assert casting(plain_house, meddlers, at(CLIENT, 4, lambda packet: packet + forged)) == [0, 1, 2]


def test_a_keepalive_of_nine_bytes_ends_the_line(plain_house, meddlers):
    assert casting(plain_house, meddlers, at(CLIENT, 4, lambda packet: KEEPALIVE + packet)) == [0, 1]


@pytest.mark.parametrize("whose", [CLIENT, SERVER])
def test_a_packet_that_comes_back_to_its_sender_ends_the_line(plain_house, meddlers, whose):
    client, meddler = meddled(plain_house, meddlers)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    line = meddler.lines[0]
    line.say(whose, line.sent[whose][-1])
    cause = root_of(until(lambda: client.info()["cause"]))
    assert type(cause) is erps.SignatureMismatch


def test_a_reply_that_is_replayed_answers_no_other_call(plain_house, meddlers):
    client, meddler = meddled(
        plain_house, meddlers, meddle=at(SERVER, 3, lambda packet: meddler.lines[0].sent[SERVER][2])
    )
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert type(cause_of(client, ("echo", 2))) is erps.SignatureMismatch


@pytest.mark.parametrize("whose", [CLIENT, SERVER])
def test_packets_of_two_connections_cannot_be_spliced(plain_house, meddlers, whose):
    seen = Notes()
    daemon = plain_house.daemon(Lab, {}, seen, signing=OLD_RING)
    meddler = meddlers(daemon.address)
    one, two = (plain_house.client(meddler.address, signing=OLD_RING, heal=False) for _ in range(2))
    assert one.call(("echo", "one"), timeout=PATIENCE) == "one"
    assert two.call(("echo", "two"), timeout=PATIENCE) == "two"
    first, second = meddler.lines
    to = SERVER if whose == CLIENT else CLIENT
    # What comes next on the second one is what came at that place on the first.
    one.call(("echo", "three"), timeout=PATIENCE)
    second.say(to, first.sent[whose][3])
    cause = root_of(until(lambda: two.info()["cause"]))
    assert type(cause) is erps.SignatureMismatch
    assert one.call(("echo", "on"), timeout=PATIENCE) == "on"


def test_a_recorded_connection_cannot_be_replayed(plain_house, meddlers, counting):
    seen = Notes()
    daemon = plain_house.daemon(counting, seen, signing=OLD_RING)
    meddler = meddlers(daemon.address)
    client = plain_house.client(meddler.address, signing=OLD_RING)
    client.wait_connected(PATIENCE)
    client.cast("pay")
    seen.wait("cast")
    client.close()
    recorded = meddler.lines[0].sent[CLIENT]
    assert [packet[8] for packet in recorded] == [Type.HELLO, Type.KEEPALIVE, Type.CAST, Type.BYE]
    for size in (len(recorded), 1):
        sock = plain_house.raw(daemon)
        sock.sendall(b"".join(recorded[:size]))
        if size == 1:
            hello = sock.recv(65536)
            assert hello[8] == Type.HELLO
            sock.sendall(b"".join(recorded[1:]))
        said = b""
        while chunk := sock.recv(65536):
            said += chunk
        assert Type(said[-1] if len(said) < 9 else said[8]) in (Type.HELLO, Type.ERROR)
    assert daemon.info()["handshake_failures"] == 2
    assert seen.of("cast") == ["pay"]
    assert counting.begun == 1


def test_a_recorded_hello_starts_nothing_and_holds_no_place(plain_house, meddlers, counting):
    daemon = plain_house.daemon(counting, signing=OLD_RING, max_connections=1, handshake_timeout=PATIENCE)
    meddler = meddlers(daemon.address)
    client = plain_house.client(meddler.address, signing=OLD_RING)
    client.wait_connected(PATIENCE)
    client.close()
    until(lambda: daemon.info()["servers"] == 0)
    for _ in range(3):
        sock = plain_house.raw(daemon)
        sock.sendall(meddler.lines[0].sent[CLIENT][0])
        assert sock.recv(65536)[8] == Type.HELLO
    assert (daemon.info()["servers"], daemon.info()["handshakes"]) == (0, 3)
    assert counting.begun == 1
    assert plain_house.client(daemon, signing=OLD_RING).call(("echo", 1), timeout=PATIENCE) == 1


def test_a_recorded_hello_is_dropped_after_the_handshake_timeout(plain_house, meddlers, counting, caplog):
    caplog.set_level(logging.INFO, "erps_gevent")
    daemon = plain_house.daemon(counting, signing=OLD_RING, handshake_timeout=300 * MS)
    meddler = meddlers(daemon.address)
    plain_house.client(meddler.address, signing=OLD_RING).wait_connected(PATIENCE)
    sock = plain_house.raw(daemon)
    sock.sendall(meddler.lines[0].sent[CLIENT][0])
    with in_time():
        assert sock.recv(65536)[8] == Type.HELLO
        assert sock.recv(65536) == b""
    assert counting.begun == 1
    assert "did not show in time that its hello is no recorded one" in caplog.text


def test_a_server_that_is_recorded_cannot_be_played_to_a_client(plain_house, meddlers):
    daemon = plain_house.daemon(signing=OLD_RING)
    meddler = meddlers(daemon.address)
    plain_house.client(meddler.address, signing=OLD_RING).call(("echo", 1), timeout=PATIENCE)
    recorded = list(meddler.lines[0].sent[SERVER])
    player = meddlers(daemon.address, lambda who, number, packet: packet if who == CLIENT else recorded[number])
    cause = cause_of(plain_house.client(player.address, signing=OLD_RING))
    assert type(cause) is erps.SignatureMismatch


def test_a_cut_is_a_lost_line_and_the_client_knows_that_its_call_may_have_been_executed(plain_house, meddlers):
    gate = Gate()
    client, meddler = meddled(plain_house, meddlers, Lab, {"wait": gate})
    waiting = gevent.spawn(cause_of, client, ("wait",))
    gate.entered.wait(PATIENCE)
    meddler.lines[0].cut()
    with in_time():
        cause = waiting.get()
    assert type(cause) is erps.Disconnected
    gate.open()


# Keys are changed.


def test_keys_are_changed_under_load_without_a_failed_call(plain_house):
    """The servers get the new key beside the old; the clients change; the servers drop the old one."""
    port = free_port()
    listener = ("127.0.0.1", port)
    served = {OLD_RING: [], BOTH: [], NEW_RING: []}

    class Noting(Lab):
        def init(self, ring):
            super().init()
            served[ring].append(self.peer.key_id)

    daemon = plain_house.daemon(Noting, OLD_RING, listener=listener, signing=OLD_RING)
    failures, answered = [], []
    stopping = Event()

    def caller(client):
        for number in count():
            if stopping.is_set():
                return
            try:
                answered.append(client.call(("echo", number), timeout=PATIENCE))
            except erps.ErpsError as error:
                failures.append(error)
                return

    def load(ring):
        client = plain_house.client(listener, signing=ring)
        return client, [gevent.spawn(caller, client) for _ in range(5)]

    def redeploy(ring):
        """Another daemon takes over, as a deployment does it: the clients move."""
        nonlocal daemon
        leaving = daemon
        leaving.close()
        daemon = plain_house.daemon(Noting, ring, listener=listener, signing=ring)
        assert leaving.drain(timeout=PATIENCE)
        leaving.stop(timeout=0)

    def calls_go_on():
        least = len(answered) + 100
        until(lambda: failures or len(answered) > least, "calls")
        assert failures == []

    old, old_callers = load(OLD_RING)
    calls_go_on()
    redeploy(BOTH)
    calls_go_on()
    new, new_callers = load(NEW_RING)
    calls_go_on()
    # The last client with the old key is replaced.
    stopping.set()
    gevent.joinall([*old_callers, *new_callers])
    stopping.clear()
    old.close()
    new_callers = [gevent.spawn(caller, new) for _ in range(5)]
    redeploy(NEW_RING)
    calls_go_on()
    stopping.set()
    gevent.joinall(new_callers)
    assert failures == []
    assert set(served[OLD_RING]) == {"old"}
    assert set(served[BOTH]) == {"old", "new"}
    assert set(served[NEW_RING]) == {"new"}
    assert new.stats["moves"] == 1
    assert type(cause_of(plain_house.client(listener, signing=OLD_RING))) is erps.SignatureMismatch


def test_a_healed_line_has_other_keys(plain_house, meddlers):
    daemon = plain_house.daemon(signing=OLD_RING)
    meddler = meddlers(daemon.address)
    client = plain_house.client(meddler.address, signing=OLD_RING)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    meddler.lines[0].cut()
    until(lambda: client.stats["connects"] == 2)
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1
    first, second = (line.sent[CLIENT] for line in meddler.lines)
    assert not {packet[64:96] for packet in first} & {packet[64:96] for packet in second}
